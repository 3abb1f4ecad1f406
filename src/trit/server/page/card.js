// The model's card: what it is, what it lost, and its bits, tensor by tensor.

const { el, human, models, number, size } = trit;
const LAYER = /^(?:blk|layers?)\.(\d+)\.(.+?)(?:\.weight)?$/;
const ORDER = [
  "attn_qkv", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate_inp", "ffn_gate", "ffn_up",
  "ffn_down", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps",
];
const TICKS = [1, 1.58, 2, 3, 4, 5, 6, 8, 16];

let section = null;
let body = null;
let shown = null;  // the model that is drawn

trit.view({
  name: "card",
  title: "Card",
  needs: "/card",
  open(given) {
    section = given;
    body = el("div", { class: "sheet" });
    section.append(el("div", { class: "bar" }, models.chooser()), body);
    trit.on("models", () => { if (!section.hidden) show(); });
  },
  show,
});

async function show() {
  const id = models.chosen;
  if (id === null || id === shown) return;
  shown = id;
  try {
    const card = await models.card(id);
    if (shown === id) body.replaceChildren(...sheet(card));
  } catch (error) {
    shown = null;
    body.replaceChildren(el("p", { class: "failure", role: "alert" }, error.message));
  }
}

function sheet(card) {
  const errors = card.quality?.tensor_errors ?? [];
  const tensors = card.tensors.map((tensor, at) => ({ ...tensor, error: errors[at] ?? null }));
  return [
    el("h1", {}, card.id),
    el("p", { class: "lead" }, lead(card)),
    el("dl", { class: "figures" },
      figure("bits per weight", card.bits_per_weight === null ? "–" : number(card.bits_per_weight)),
      figure("on disk", size(card.tensor_bytes)),
      figure("parameters", human(card.parameters)),
      figure("context", count(card.hyper_parameters.context))),
    quality(card.quality),
    el("h2", {}, "Bits, tensor by tensor"),
    ...bits(tensors),
    el("h2", {}, "Types"), types(card),
    el("h2", {}, "Facts"), facts(card),
    el("h2", {}, "All tensors"), all(tensors),
  ];
}

function lead({ name, architecture, licence, recipe }) {
  const words = [name, architecture && `architecture ${architecture}`, `licence ${licence ?? "not stated"}`,
    recipe && "made by trit, by a recipe that can be verified"];
  return words.filter(Boolean).join(" · ");
}

function figure(label, value) {
  return el("div", {}, el("dt", {}, label), el("dd", {}, value));
}

function count(value) {
  if (value === null || value === undefined) return "–";
  const range = [Math.min(...[value].flat()), Math.max(...[value].flat())];
  const [least, most] = range.map((each) => each.toLocaleString("en"));
  return least === most ? least : `${least} to ${most}`;
}

function quality(found) {
  if (!found) {
    return el("p", { class: "hint" }, "The file carries no quality card: what it lost against its " +
      "source was not measured. ", el("code", {}, "trit quantize --card"), " measures and writes one.");
  }
  const with_error = (value, error, scale = 1) =>
    `${number(value * scale)}${error === null ? "" : ` ± ${number(error * scale, 2)}`}`;
  return el("section", { class: "quality", "aria-label": "Quality" },
    el("dl", { class: "figures" },
      figure("KLD from the source, nats", with_error(found.kld, found.kld_stderr)),
      figure("perplexity", with_error(found.ppl, found.ppl_stderr)),
      figure("the source's", with_error(found.ppl_source, found.ppl_source_stderr)),
      figure("same top token", `${with_error(found.same_top, found.same_top_stderr, 100)}%`)),
    el("p", { class: "hint" }, `Measured on ${found.tokens.toLocaleString("en")} tokens of the ` +
      `card's text, in windows of ${found.ctx}, and written into the file.`));
}

/** Layers as rows, kinds of matrices as columns; what stands in no layer above. */
function bits(tensors) {
  const matrices = tensors.filter(({ shape }) => shape.length > 1);
  const apart = matrices.filter(({ name }) => !LAYER.test(name));
  const layers = new Map();
  const kinds = new Set();
  for (const tensor of matrices) {
    const [, layer, kind] = LAYER.exec(tensor.name) ?? [];
    if (kind === undefined) continue;
    kinds.add(kind);
    layers.set(layer, (layers.get(layer) ?? new Map()).set(kind, tensor));
  }
  const rest = tensors.length - matrices.length;
  return [
    legend(),
    el("ul", { class: "apart", role: "list" }, apart.map((tensor) => el("li", {},
      el("span", {}, tensor.name.replace(/\.weight$/, "")), cell("span", tensor)))),
    layers.size ? grid(layers, [...kinds].sort((a, b) => place(a) - place(b))) : null,
    rest ? el("p", { class: "hint" }, `${rest} vectors (norms, biases) are not drawn; they are in the ` +
      "table below.") : null,
  ].filter(Boolean);
}

/** Kinds stand in the order of the computation, those that are not known behind. */
function place(kind) {
  const at = ORDER.indexOf(kind);
  return at < 0 ? ORDER.length : at;
}

function grid(layers, kinds) {
  const ordered = [...layers].sort(([a], [b]) => a - b);
  const rows = ordered.map(([layer, found]) => el("tr", {},
    el("th", { scope: "row" }, layer),
    kinds.map((kind) => (found.has(kind) ? cell("td", found.get(kind)) : el("td")))));
  const made = el("table", { class: "grid" },
    el("caption", { class: "unseen" }, "Bits per weight, by layer and kind of tensor"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "layer"),
      kinds.map((kind) => el("th", { scope: "col" }, kind.replaceAll("_", "_\u200b"))))),
    el("tbody", {}, rows));
  made.style.setProperty("--columns", kinds.length + 1);
  return el("div", { class: "wide", tabIndex: 0, role: "group", "aria-label": "Bits by layer" }, made);
}

/** A tensor by its bits: the number, a tint and a bar. */
function cell(tag, { name, type, shape, bits_per_weight: bits, bytes, error }) {
  const lost = error === null ? "" : `, ${number(100 * error)}% off`;
  const made = el(tag, {
    class: "bits", title: `${name}: ${type.toUpperCase()}, ${shape.join(" × ")}, ${size(bytes)}${lost}`,
  }, number(bits), el("span", { class: "unseen" }, ` bits, ${type.toUpperCase()}`));
  return tinted(made, bits);
}

/** Width in proportion to sixteen bits, a tint by octaves from one to sixteen. */
function tinted(made, bits) {
  const within = (value) => Math.min(1, Math.max(0, value)).toFixed(3);
  made.style.setProperty("--width", within(bits / 16));
  made.style.setProperty("--tint", within(Math.log2(bits) / 4));
  return made;
}

function legend() {
  return el("p", { class: "legend", "aria-hidden": "true" }, el("span", {}, "bits"),
    TICKS.map((bits) => tinted(el("span", { class: "bits" }, number(bits)), bits)));
}

/** Each type's part of the bytes, as a bar and as a table. */
function types({ types: found, tensor_bytes: total }) {
  const bar = el("div", { class: "share", "aria-hidden": "true" }, found.map((row) => {
    const made = tinted(el("span", { class: "bits full" }), row.bits_per_weight);
    made.style.flexGrow = row.bytes / total;
    return made;
  }));
  return el("div", {}, bar, table("Types",
    ["type", "bits per weight", "tensors", "parameters", "size"],
    found.map((row) => [row.type.toUpperCase(), number(row.bits_per_weight), row.tensors,
      human(row.parameters), size(row.bytes)])));
}

function facts({ hyper_parameters: hyper, tokenizer, ...card }) {
  const rows = Object.entries(hyper).filter(([, value]) => value !== null)
    .map(([name, value]) => [name.replaceAll("_", " "), count(value)]);
  rows.push(["tokenizer", `${tokenizer.model ?? "none"}, ${count(tokenizer.tokens)} tokens`]);
  if (card.quantization) rows.push(["quantized", card.quantization]);
  if (card.made_by) rows.push(["made by", `trit ${card.made_by}`]);
  if (card.source_sha256) rows.push(["source's sha256", card.source_sha256]);
  if (card.recipe) rows.push(["recipe", card.recipe]);
  return el("dl", { class: "facts" },
    rows.map(([label, value]) => [el("dt", {}, label), el("dd", {}, value)]).flat());
}

function all(tensors) {
  const lost = tensors.some(({ error }) => error !== null);
  const heads = ["tensor", "type", "bits", "shape", "size", ...(lost ? ["error"] : [])];
  return el("details", {}, el("summary", {}, `${tensors.length} tensors`),
    table("All tensors", heads, tensors.map(({ name, type, bits_per_weight, shape, bytes, error }) => [
      name, type.toUpperCase(), number(bits_per_weight), shape.join(" × "), size(bytes),
      ...(lost ? [error === null ? "–" : `${number(100 * error)}%`] : []),
    ])));
}

function table(label, heads, rows) {
  return el("div", { class: "wide", tabIndex: 0, role: "group", "aria-label": label }, el("table", {},
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, rows.map(([name, ...others]) => el("tr", {}, el("th", { scope: "row" }, name),
      others.map((each) => el("td", {}, each)))))));
}
