// Spread: how lanes lie side by side in a picture of some width, and how their names stand above them. Pure.
//
//   spreadOf(width, lengths)   lengths: of the lanes' names, px. Gives {kind: flat | slanted | upright | rail, axis, gap,
//                              tail, head, room}: px of the times at the left, from lane to lane, beyond the last lane,
//                              of the names, and for one name
//
// The first kind that fits is taken, so that no lane is out of sight and no name is cut off at the edge while there is a way.

const AXIS_PX = 48; // of the times at the left, and the bracket
const RAIL_AXIS_PX = 12; // of the bracket alone
const RAIL_BELOW_PX = 150; // narrower, and names would take what the lanes need
const LANE_MAX_PX = 132;
const FLAT_PX = 84; // from lane to lane: wide enough for a name that lies
const SLANTED_PX = 18;
const UPRIGHT_PX = 10; // nearer, and names cannot be told apart: the picture scrolls sideways instead
const RAIL_PX = 3;
const NAME_MAX_PX = 112; // a longer one is cut, and its title has it whole
export const SLANT = Math.PI / 3;

export function spreadOf(width, lengths) {
  const count = Math.max(1, lengths.length);
  const room = Math.min(NAME_MAX_PX, Math.ceil(Math.max(0, ...lengths)));
  const gapOf = (axis, tail) => Math.min(LANE_MAX_PX, (width - axis - tail) / count);
  if (width < RAIL_BELOW_PX) return { kind: "rail", axis: RAIL_AXIS_PX, gap: Math.max(RAIL_PX, gapOf(RAIL_AXIS_PX, 6)), tail: 6, head: 8, room: 0 };
  const flat = gapOf(AXIS_PX, 0);
  if (flat >= FLAT_PX) return { kind: "flat", axis: AXIS_PX, gap: flat, tail: 0, head: 30, room: flat - 8 };
  const tail = Math.ceil(room * Math.cos(SLANT)) + 8;
  const slanted = gapOf(AXIS_PX, tail);
  if (slanted >= SLANTED_PX) return { kind: "slanted", axis: AXIS_PX, gap: slanted, tail, head: Math.ceil(room * Math.sin(SLANT)) + 16, room };
  return { kind: "upright", axis: AXIS_PX, gap: Math.max(UPRIGHT_PX, gapOf(AXIS_PX, 4)), tail: 4, head: room + 14, room };
}
