// Markdown within a line: code, emphasis, links. Text in, DOM nodes out; what is no markdown, and all
// HTML, stays the text that it is. An image becomes a link: nothing is asked for unasked.

const { el } = trit;
const LONGEST = 10_000;  // characters that are looked at; longer is plain text
const DEEPEST = 8;
const MARK = /`+|\*{1,3}|_{1,2}|~~|!?\[|https?:\/\/|\\[!-/:-@[-`{-~]/g;
const ADDRESS = /https?:\/\/[^\s<>"`]+/y;
const SAFE = /^(https?:\/\/|mailto:)/i;
const TAGS = { "*": "em", _: "em", "**": "strong", __: "strong", "~~": "s" };

/** The nodes of a text. */
trit.inline = (text) => (text.length > LONGEST ? [text] : parse(text, 0));

function parse(text, depth) {
  const nodes = [];
  const missing = new Set();  // closers that come no more: looked for once
  let from = 0;
  const mark = new RegExp(MARK);
  for (let found; (found = mark.exec(text)) !== null;) {
    const made = depth < DEEPEST ? read(text, found, depth, missing) : null;
    if (made === null) continue;
    if (found.index > from) nodes.push(text.slice(from, found.index));
    nodes.push(...made.nodes);
    from = mark.lastIndex = made.end;
  }
  if (from < text.length) nodes.push(text.slice(from));
  return nodes;
}

/** What begins at a mark: its nodes and where it ends; null if it is just text. */
function read(text, { 0: sign, index }, depth, missing) {
  if (sign[0] === "\\") return { nodes: [sign[1]], end: index + 2 };
  if (sign[0] === "`") return code(text, sign, index, missing);
  if (sign.endsWith("[")) return link(text, sign, index, missing);
  if (sign[0] === "h") return address(text, index);
  return emphasis(text, sign, index, depth, missing);
}

function code(text, sign, index, missing) {
  const begin = index + sign.length;
  const end = closer(text, sign, begin, missing,
    (at) => text[at - 1] !== "`" && text[at + sign.length] !== "`");
  if (end < 0) return null;
  const inside = text.slice(begin, end);
  const shown = /^ .*[^ ].* $/s.test(inside) ? inside.slice(1, -1) : inside;
  return { nodes: [el("code", {}, shown)], end: end + sign.length };
}

function emphasis(text, sign, index, depth, missing) {
  const begin = index + sign.length;
  const word = (at) => /[\p{L}\p{N}]/u.test(text[at] ?? "");
  const low = sign[0] === "_";
  if (/^\s?$/.test(text[begin] ?? "") || (low && word(index - 1))) return null;
  const end = closer(text, sign, begin + 1, missing, (at) =>
    !/\s/.test(text[at - 1]) && text[at + sign.length] !== sign[0] &&
    !(low && word(at + sign.length)));
  if (end < 0) return null;
  const inside = parse(text.slice(begin, end), depth + 1);
  const made = sign === "***"
    ? el("strong", {}, el("em", {}, inside)) : el(TAGS[sign], {}, inside);
  return { nodes: [made], end: end + sign.length };
}

/** Where a sign stands again, and `fits`; -1 where it does not. */
function closer(text, sign, from, missing, fits) {
  if (missing.has(sign)) return -1;
  let at = text.indexOf(sign, from);
  while (at >= 0 && !fits(at)) at = text.indexOf(sign, at + 1);
  if (at < 0) missing.add(sign);
  return at;
}

function link(text, sign, index, missing) {
  const begin = index + sign.length;
  const middle = closer(text, "](", begin, missing, () => true);
  const end = middle < 0 ? -1 : closer(text, ")", middle + 2, missing, () => true);
  if (end < 0 || text.slice(begin, middle).includes("[")) return null;
  const [to] = text.slice(middle + 2, end).trim().split(/\s/);
  if (!SAFE.test(to)) return null;
  const words = text.slice(begin, middle) || to;
  return { nodes: [anchor(to, sign === "![" ? `image: ${words}` : words)], end: end + 1 };
}

function address(text, index) {
  ADDRESS.lastIndex = index;
  const [whole] = ADDRESS.exec(text) ?? [""];
  const to = whole.replace(/[.,;:!?'*_)\]]+$/, "");
  return to.length < 10 ? null : { nodes: [anchor(to, to)], end: index + to.length };
}

function anchor(to, words) {
  return el("a", { href: to, title: to, target: "_blank", rel: "noopener noreferrer" }, words);
}
