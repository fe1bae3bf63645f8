// Caucus in OpenCode. It wakes the session that sits at the table when mail comes for it, and holds tools back when the
// operator says so. Written by `caucus install opencode`; `caucus uninstall opencode` removes it.
import { spawn } from "node:child_process";

const WAKE = {{wake}};
const BRAKE = {{brake}};

/** Run a command to its end; give what it printed. */
function run(words, input = "") {
  return new Promise((resolve) => {
    const child = spawn(words[0], words.slice(1), { stdio: ["pipe", "pipe", "ignore"] });
    let said = "";
    const stop = () => child.kill();
    process.once("exit", stop);
    child.stdout.on("data", (data) => { said += data; });
    child.stdin.on("error", () => {});
    child.on("error", () => resolve(""));
    child.on("close", () => { process.off("exit", stop); resolve(said.trim()); });
    child.stdin.end(input);
  });
}

export const Caucus = async ({ client }) => {
  let session = ""; // the one whose agent, or a subagent of it, has used the room's tools last
  let isWaiting = false;

  /** Give the session that a subagent's belongs to: its user sees that one, and it is still there afterwards. */
  async function rootOf(id) {
    const found = await client.session.get({ path: { id } }).catch(() => undefined);
    return found?.data?.parentID ? rootOf(found.data.parentID) : id;
  }

  async function wait() {
    if (isWaiting) return;
    isWaiting = true;
    try {
      for (let words = await run(WAKE); words; words = await run(WAKE)) {
        await client.session.promptAsync({ path: { id: session }, body: { parts: [{ type: "text", text: words }] } });
      }
    } finally {
      isWaiting = false; // the seat was given up, or its bridge has ended: the next call of a tool looks again
    }
  }

  return {
    "tool.execute.before": async ({ tool, sessionID }) => {
      if (tool.startsWith("caucus_")) session = await rootOf(sessionID);
      else if (session) {
        const held = await run(BRAKE, JSON.stringify({ tool_name: tool }));
        if (held) throw new Error(JSON.parse(held).hookSpecificOutput.permissionDecisionReason);
      }
    },
    "tool.execute.after": async ({ tool }) => {
      if (tool.startsWith("caucus_")) wait().catch(() => {});
    },
  };
};
