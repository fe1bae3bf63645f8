// Sounds: the short calls that the operator can choose from, made by the browser itself.

const VOLUME = 0.08;

// name -> what it is called, and its notes: [Hz, when it begins, how long it lasts], s
export const SOUNDS = {
  "": ["None", []],
  tone: ["Tone", [[660, 0, 0.16]]],
  chime: ["Chime", [[660, 0, 0.2], [880, 0.14, 0.3]]],
  knock: ["Knock", [[150, 0, 0.09], [150, 0.16, 0.09]]],
};

/** Play one; a browser that has heard no click yet stays silent. */
export function play(name) {
  const [, notes] = SOUNDS[name] ?? SOUNDS[""];
  if (notes.length === 0) return;
  const sound = new AudioContext();
  const ends = notes.map(([hz, from, length]) => {
    const tone = sound.createOscillator();
    const volume = sound.createGain();
    const start = sound.currentTime + from;
    tone.frequency.value = hz;
    volume.gain.setValueAtTime(VOLUME, start);
    volume.gain.exponentialRampToValueAtTime(0.0001, start + length);
    tone.connect(volume).connect(sound.destination);
    tone.start(start);
    tone.stop(start + length);
    return tone;
  });
  ends.at(-1).onended = () => sound.close();
}
