// The ground of the page: making elements, and saying to screen readers what has happened.

globalThis.trit = {};

/**
 * An element. `properties`: functions are listeners ("onclick"), "class", "for", "role" and what has
 * a dash are attributes, the rest are properties of the element. Children are elements or texts;
 * those that are null or false are left out.
 */
trit.el = (tag, properties = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (/-|^(class|for|role|colspan|scope)$/.test(name)) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.flat().filter((child) => child !== null && child !== false));
  return made;
};

/** Tell a screen reader, once it has nothing else to say. */
trit.say = (text) => {
  const status = document.getElementById("status");
  status.textContent = "";
  setTimeout(() => { status.textContent = text; }, 50);  // the same text twice is said twice
};

/** A number for people: 1,234 and 12.3 and 0.0123. */
trit.number = (value, digits = 3) =>
  value.toLocaleString("en", value >= 10 ** digits
    ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: digits });

/** "1.5 GiB" of bytes. */
trit.size = (bytes) => {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  const step = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return `${trit.number(bytes / 1024 ** step)} ${units[step]}`;
};

/** What parts of the page tell each other: trit.on("model", …), trit.tell("model"). */
const happenings = new EventTarget();
trit.on = (name, listener) => happenings.addEventListener(name, listener);
trit.tell = (name) => happenings.dispatchEvent(new Event(name));
