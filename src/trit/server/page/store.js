// Conversations in this browser's store, within a bound, and as files.

const { kept, tree } = trit;
const PREFIX = "trit.talk.";
const MOST = 4 << 20;  // characters in all; browsers give about 5 million
const FORMAT = "trit conversation 1";

trit.store = {
  /** What could be read, the last changed first. */
  all() {
    const found = kept.names().filter((name) => name.startsWith(PREFIX)).map(read);
    return found.filter((talk) => talk !== null).sort((a, b) => b.changed - a.changed);
  },

  /** Keep a conversation; null, or in words why it is not kept. */
  save(talk) {
    const text = JSON.stringify(talk);
    const others = trit.store.used() - (kept.get(PREFIX + talk.id)?.length ?? 0);
    const room = others + text.length <= MOST;
    if (room && kept.set(PREFIX + talk.id, text)) return null;
    return "This browser's store is full: what is new here is lost when the page is closed. " +
      "Export this conversation, or delete others.";
  },

  /** As it was kept last; null where it is no more. */
  load: (id) => read(PREFIX + id),

  remove: (talk) => kept.remove(PREFIX + talk.id),

  /** Characters kept. */
  used() {
    const names = kept.names().filter((name) => name.startsWith(PREFIX));
    return names.reduce((sum, name) => sum + (kept.get(name)?.length ?? 0), 0);
  },

  most: MOST,

  /** The whole conversation, to be imported again. */
  json: (talk) => JSON.stringify({ format: FORMAT, ...talk }, null, 1),

  /** The branch that is shown, to be read. */
  markdown(talk) {
    const parts = [`# ${talk.title || "Conversation"}`];
    if (talk.system.trim()) parts.push("## System", talk.system);
    for (const at of tree.path(talk)) {
      const { role, content, model } = talk.nodes[at];
      parts.push(role === "user" ? "## You" : `## ${model ?? "Model"}`, content);
    }
    return `${parts.join("\n\n")}\n`;
  },

  /** The conversation in a file's text, as a new one. Throws Error, in words. */
  parse(text) {
    let given;
    try { given = JSON.parse(text); } catch { throw new Error("It is not JSON."); }
    if (given?.format !== FORMAT) throw new Error("It is not a conversation of this page.");
    return tree.parse(given);
  },
};

function read(name) {
  try {
    return { ...tree.parse(JSON.parse(kept.get(name))), id: name.slice(PREFIX.length) };
  } catch {
    return null;  // of another version, or half deleted
  }
}
