// A conversation is a tree. Every message names the one before it as its parent; an answer made again
// and a message edited are siblings of the first. What is shown is one branch, root to leaf.
//
//   talk   {id, title, created, changed, system, settings, first, nodes}
//   node   {role, content, parent, next, …}: places in `nodes`; -1 is the root's parent, and `first`
//          and `next` are the child that is shown, null where there is none

const ROLES = new Set(["user", "assistant"]);
const STATS = ["tokens", "context"];
const TEXTS = ["model", "reasoning", "finish", "error"];
const MOST_NODES = 10_000;

trit.tree = {
  /** An empty conversation, with the system prompt and the settings of another. */
  create({ system = "", settings = {} } = {}) {
    const random = crypto.getRandomValues(new Uint32Array(2));
    const now = Date.now();
    return {
      id: [...random].map((part) => part.toString(36)).join(""), title: "", created: now,
      changed: now, system, settings: { ...settings }, first: null, nodes: [],
    };
  },

  /** Places of the shown branch, from its root. */
  path(talk) {
    const places = [];
    for (let at = talk.first; at !== null; at = talk.nodes[at].next) places.push(at);
    return places;
  },

  /** The place of the last message shown; -1 in an empty conversation. */
  leaf: (talk) => trit.tree.path(talk).at(-1) ?? -1,

  /** Places of a message and what stands in its stead, the oldest first. */
  siblings(talk, at) {
    const { parent } = talk.nodes[at];
    return [...talk.nodes.keys()].filter((place) => talk.nodes[place].parent === parent);
  },

  /** Add a message behind `parent` and show it; its place. */
  add(talk, parent, message) {
    const at = talk.nodes.push({ ...message, parent, next: null }) - 1;
    trit.tree.choose(talk, at);
    return at;
  },

  /** Show this message in place of its siblings. */
  choose(talk, at) {
    const { parent } = talk.nodes[at];
    if (parent < 0) talk.first = at;
    else talk.nodes[parent].next = at;
  },

  /** The messages up to and with a place, as the API takes them. */
  messages(talk, at) {
    const found = [];
    for (let place = at; place >= 0; place = talk.nodes[place].parent) {
      const { role, content } = talk.nodes[place];
      if (role === "user" || content) found.unshift({ role, content });
    }
    return talk.system.trim() ? [{ role: "system", content: talk.system }, ...found] : found;
  },

  /** A conversation of JSON that anyone may have written. Throws Error, in words. */
  parse(given) {
    const nodes = Array.isArray(given?.nodes) ? given.nodes : [];
    if (nodes.length === 0) throw new Error("It has no messages.");
    if (nodes.length > MOST_NODES) throw new Error(`It has more than ${MOST_NODES} messages.`);
    const talk = trit.tree.create({
      system: text(given.system), settings: trit.settings.sane(given.settings),
    });
    for (const [at, node] of nodes.entries()) talk.nodes.push(parsed(node, at));
    talk.nodes.forEach((node, at) => trit.tree.choose(talk, at));  // the newest of each
    for (const at of nodes.keys()) follow(talk, at, nodes[at].next);
    follow(talk, -1, given.first);
    talk.title = text(given.title).slice(0, 200);
    talk.created = Number.isFinite(given.created) ? given.created : talk.created;
    talk.changed = Number.isFinite(given.changed) ? given.changed : talk.changed;
    return talk;
  },
};

function parsed(node, at) {
  const fault = (what) => new Error(`Message ${at + 1}: ${what}.`);
  if (!ROLES.has(node?.role)) throw fault("its role is neither user nor assistant");
  if (typeof node.content !== "string") throw fault("it has no content");
  if (!Number.isInteger(node.parent) || node.parent < -1 || node.parent >= at) {
    throw fault("its parent is not an earlier message");
  }
  const made = { role: node.role, content: node.content, parent: node.parent, next: null };
  for (const name of TEXTS) if (text(node[name])) made[name] = node[name];
  if (STATS.every((name) => Number.isFinite(node.stats?.[name]))) made.stats = figures(node.stats);
  return made;
}

function follow(talk, at, next) {
  if (Number.isInteger(next) && talk.nodes[next]?.parent === at) trit.tree.choose(talk, next);
}

function figures(stats) {
  return Object.fromEntries(Object.entries(stats).filter(([, value]) => Number.isFinite(value)));
}

function text(value) {
  return typeof value === "string" ? value : "";
}
