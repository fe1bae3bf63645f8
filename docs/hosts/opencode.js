// caucus: the plugin of OpenCode. `caucus install opencode` fills in the two commands.
const GATE = {{gate}};
const WAKE = {{wake}};

export const caucus = async () => ({ GATE, WAKE }) && {};
