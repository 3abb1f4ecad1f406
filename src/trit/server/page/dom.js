// The ground of the page: making elements, saying what has happened, keeping things.

globalThis.trit = {};

const ATTRIBUTES = /-|^(class|for|role|colspan|scope|popover)$/;

/**
 * An element. Of `properties`, functions are listeners ("onclick"), ATTRIBUTES are attributes, the
 * rest are properties of the element; null is none. Children are elements and texts; null and false
 * are none.
 */
trit.el = (tag, properties = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (ATTRIBUTES.test(name)) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.flat().filter((child) => child !== null && child !== false));
  return made;
};

/** A button with words on it, or a sign and its words for who does not see it. */
trit.button = (words, onclick, properties = {}) =>
  trit.el("button", { type: "button", class: "quiet", onclick, ...properties }, words);

/** Tell a screen reader, once it has nothing else to say. */
trit.say = (text) => {
  const status = document.getElementById("status");
  status.textContent = "";
  setTimeout(() => { status.textContent = text; }, 50);  // the same text twice is said twice
};

/** A number for people: 1,234 and 12.3 and 0.0123. */
trit.number = (value, digits = 3) =>
  value.toLocaleString("en", Math.abs(value) >= 10 ** digits
    ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: digits });

/** "1.5 GiB" of bytes. */
trit.size = (bytes) => {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  const step = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return `${trit.number(bytes / 1024 ** step)} ${units[step]}`;
};

/** "135M" of a count. */
trit.human = (count) => {
  const step = count < 1 ? 0 : Math.min(4, Math.floor(Math.log10(count) / 3));
  return `${trit.number(count / 1000 ** step)}${["", "K", "M", "B", "T"][step]}`;
};

/** What parts of the page tell each other: trit.on("models", …), trit.tell("models"). */
const happenings = new EventTarget();
trit.on = (name, listener) => happenings.addEventListener(name, listener);
trit.tell = (name) => happenings.dispatchEvent(new Event(name));

/** Texts that this browser keeps for this address; one that forbids it keeps none. */
trit.kept = {
  get(name) {
    try { return localStorage.getItem(name); } catch { return null; }
  },
  /** Whether there was room. */
  set(name, text) {
    try { localStorage.setItem(name, text); } catch { return false; }
    return true;
  },
  remove(name) {
    try { localStorage.removeItem(name); } catch { /* then there was nothing */ }
  },
  names() {
    try { return Object.keys(localStorage); } catch { return []; }
  },
};

/** A button that puts a text on the clipboard; `what` it is, in words. */
trit.copier = (what, text) => {
  const made = trit.button("Copy", async () => {
    const done = await copy(text());
    trit.say(done ? `Copied ${what}` : "The browser does not let this page copy");
    made.textContent = done ? "Copied" : "Not copied";
    setTimeout(() => { made.textContent = "Copy"; }, 1500);
  }, { "aria-label": `Copy ${what}`, "data-act": "copy" });
  return made;
};

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const field = trit.el("textarea", { value: text, class: "unseen" });  // no TLS, another machine
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}

/** Give the person a file to keep. */
trit.download = (name, type, text) => {
  const address = URL.createObjectURL(new Blob([text], { type }));
  trit.el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
};
