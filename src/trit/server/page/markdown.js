// Markdown in blocks: paragraphs, headings, lists, quotes, code, tables, rules. For text that grows,
// only the blocks that have changed are drawn again.

const { code, el, inline } = trit;
const DEEPEST = 6;  // lists and quotes within each other; what is deeper is text
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*)$/;
const RULE = /^ {0,3}([-*_])\s*(?:\1\s*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(\s+)/;
const BETWEEN = /^[\s:|-]+$/;  // a table's second line

/** Draw a text into an element; again with a longer text, the blocks that are the same stay. */
trit.markdown = (text, into) => {
  const blocks = split(text.split("\n"));
  const old = into.blocks ?? [];
  let same = 0;
  while (same < blocks.length && blocks[same].key === old[same]) same++;
  while (into.childNodes.length > same) into.lastChild.remove();
  into.append(...blocks.slice(same).map((block) => block.draw(0)));
  into.blocks = blocks.map((block) => block.key);
};

/** Blocks of lines: {key, draw(depth)}, the key different where what is drawn is. */
function split(lines) {
  const blocks = [];
  for (let at = 0; at < lines.length;) {
    if (lines[at].trim() === "") at++;
    else {
      const { end, draw } = block(lines, at);
      blocks.push({ key: lines.slice(at, end).join("\n"), draw });
      at = end;
    }
  }
  return blocks;
}

function block(lines, at) {
  const line = lines[at];
  if (FENCE.test(line)) return fenced(lines, at);
  if (HEADING.test(line)) return heading(line, at);
  if (RULE.test(line)) return { end: at + 1, draw: () => el("hr") };
  if (QUOTE.test(line)) return quote(lines, at);
  if (ITEM.test(line)) return list(lines, at);
  if (heads(line, lines[at + 1] ?? "")) return table(lines, at);
  return paragraph(lines, at);
}

function fenced(lines, at) {
  const [, fence, language] = FENCE.exec(lines[at]);
  const close = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}\\s*$`);
  let end = at + 1;
  while (end < lines.length && !close.test(lines[end])) end++;
  const text = lines.slice(at + 1, end).join("\n");
  return { end: end + 1, draw: () => code(text, language) };
}

function heading(line, at) {
  const [, signs, text] = HEADING.exec(line);
  const level = Math.min(6, signs.length + 2);  // the page and the message have the first two
  const words = text.trim().replace(/ #+$/, "");
  return { end: at + 1, draw: () => el(`h${level}`, {}, inline(words)) };
}

function quote(lines, at) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end++;
  const inside = lines.slice(at, end).map((line) => line.replace(QUOTE, ""));
  return { end, draw: (depth) => el("blockquote", {}, nested(inside, depth)) };
}

function nested(lines, depth) {
  if (depth >= DEEPEST) return [el("p", {}, lines.join("\n"))];
  return split(lines).map((block) => block.draw(depth + 1));
}

function list(lines, at) {
  const first = ITEM.exec(lines[at]);
  const outer = first[1].length;
  const ordered = /\d/.test(first[2]);
  const items = [];
  let end = at;
  for (; end < lines.length; end++) {
    const line = lines[end];
    const found = ITEM.exec(line);
    const space = line.search(/\S|$/);
    if (found && space <= outer + 1 && !RULE.test(line)) {
      if (/\d/.test(found[2]) !== ordered) break;
      items.push({ indent: found[0].length, lines: [line.slice(found[0].length)] });
    } else if (line.trim() === "") {
      if (!belongs(lines, end + 1, outer, ordered)) break;
      items.at(-1).lines.push("");
    } else if (space > outer || !begins(line)) {
      const item = items.at(-1);
      if (item.lines.at(-1) === "" && space <= outer) break;
      item.lines.push(line.slice(Math.min(space, item.indent)));
    } else break;
  }
  const start = ordered ? Number.parseInt(first[2], 10) : null;
  const draw = (depth) => el(ordered ? "ol" : "ul", { start },
    items.map((item) => el("li", {}, tight(nested(item.lines, depth)))));
  return { end, draw };
}

/** Whether a list goes on behind an empty line. */
function belongs(lines, at, outer, ordered) {
  const line = lines[at] ?? "";
  const found = ITEM.exec(line);
  if (line.trim() === "") return false;
  if (found && found[1].length <= outer) return /\d/.test(found[2]) === ordered && !RULE.test(line);
  return line.search(/\S/) > outer;
}

/** Whether a line begins another block than a paragraph. */
function begins(line) {
  return [FENCE, HEADING, RULE, QUOTE, ITEM].some((pattern) => pattern.test(line));
}

/** An item's only paragraph is shown as the item's own text. */
function tight(nodes) {
  const [head, ...rest] = nodes;
  if (head?.tagName !== "P" || rest.some((node) => node.tagName === "P")) return nodes;
  return [...head.childNodes, ...rest];
}

/** Whether a line with the next one is the head of a table. */
function heads(line, next) {
  return line.includes("|") && next.includes("-") && BETWEEN.test(next) &&
    cells(line).length === cells(next).length;
}

function table(lines, at) {
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|")) end++;
  const sides = cells(lines[at + 1]).map((cell) =>
    (cell.endsWith(":") ? (cell.startsWith(":") ? "middle" : "right") : null));
  const row = (line, tag) => el("tr", {}, cells(line).slice(0, sides.length).map((cell, column) =>
    el(tag, { class: sides[column], scope: tag === "th" ? "col" : null }, inline(cell))));
  const draw = () => el("div", { class: "wide", tabIndex: 0, role: "group", "aria-label": "Table" },
    el("table", {}, el("thead", {}, row(lines[at], "th")),
      el("tbody", {}, lines.slice(at + 2, end).map((line) => row(line, "td")))));
  return { end, draw };
}

function cells(line) {
  const inside = line.trim().replace(/^\|/, "").replace(/(^|[^\\])\|$/, "$1");
  return inside.split(/(?<!\\)\|/).map((cell) => cell.replaceAll("\\|", "|").trim());
}

function paragraph(lines, at) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() !== "" && !begins(lines[end])) end++;
  const text = lines.slice(at, end).map((line) => line.trim()).join("\n");
  return { end, draw: () => el("p", {}, inline(text)) };
}
