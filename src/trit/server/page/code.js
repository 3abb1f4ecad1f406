// Blocks of code: lines as they are, a button to copy them, and colours by a rough reading that suits
// most languages: comments, strings, numbers, reserved words.

const { copier, el } = trit;
const LONGEST = 20_000;  // characters that are coloured
const PLAIN = /^(|text|txt|plain|markdown|md|output|console)$/i;
const HASH = /^(py|python|sh|bash|shell|zsh|rb|ruby|perl|r|ya?ml|toml|make|dockerfile|ini)$/i;
const DASHES = /^(sql|lua|haskell|hs|elm|ada)$/i;
const WORDS = new Set((
  "abstract and as assert async await bool boolean break case catch char class const continue def " +
  "default del delete do double elif else end enum except export extends extern false False final " +
  "finally float fn for foreach from func function global if impl implements import in instanceof " +
  "int interface is lambda let long match mod module mut namespace new nil None not null Null of or " +
  "package pass private protected pub public raise return self short SELECT FROM WHERE INSERT UPDATE " +
  "JOIN GROUP ORDER BY signed sizeof static std str string struct super switch template then this " +
  "throw throws trait true True try type typedef typeof union unsigned use using var virtual void " +
  "where while with yield").split(" "));

// A comment or a text in three quotes that is not closed goes on to the end, as while it is written.
const COMMENTS = [/#.*/, /--.*/, /\/\/.*|\/\*(?:[^]*?\*\/|[^]*)/].map((each) => each.source);
const STRING = [
  /"""(?:[^]*?"""|[^]*)|'''(?:[^]*?'''|[^]*)/, /"(?:\\.|[^"\\\n])*"/, /'(?:\\.|[^'\\\n])*'/, /`[^`]*`/,
].map((each) => each.source).join("|");
const TOKENS = COMMENTS.map((comment) => new RegExp(
  `(?<comment>${comment})|(?<string>${STRING})|` +
  /(?<number>\b\d[\w.]*)|(?<word>[A-Za-z_]\w*)/.source, "g"));

/** A figure of code in a language, by the name that a fence gives. */
trit.code = (text, language) => el("figure", { class: "code" },
  el("figcaption", {}, el("span", {}, language || "code"), copier("the code", () => text)),
  el("pre", { tabIndex: 0 }, el("code", {}, coloured(text, language))));

function coloured(text, language) {
  if (PLAIN.test(language) || text.length > LONGEST) return [text];
  const tokens = TOKENS[HASH.test(language) ? 0 : DASHES.test(language) ? 1 : 2];
  const parts = [];
  let from = 0;
  for (const found of text.matchAll(tokens)) {
    const kind = Object.keys(found.groups).find((name) => found.groups[name] !== undefined);
    if (kind === "word" && !WORDS.has(found[0])) continue;
    parts.push(text.slice(from, found.index), el("span", { class: `is-${kind}` }, found[0]));
    from = found.index + found[0].length;
  }
  return [...parts, text.slice(from)];
}
