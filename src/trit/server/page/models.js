// The models of the server, and the one in use.

const { el, get } = trit;
const POLL_MS = 1000;
const choosers = new Set();
const cards = new Map();
let timer = null;

/** `chosen` is the name that requests give; `list` is as /v1/models has it. */
trit.models = { list: [], chosen: trit.kept.get("trit.model") };

/** Ask for the models, and again while one is loading; tells "models". Throws Refusal. */
trit.models.refresh = async () => {
  clearTimeout(timer);
  const { data } = await get("/v1/models");
  trit.models.list = data;
  if (!trit.models.current()) trit.models.chosen = data[0].id;
  if (data.some((model) => model.state === "loading")) {
    timer = setTimeout(() => trit.models.refresh().catch(() => {}), POLL_MS);
  }
  draw();
  trit.tell("models");
};

/** The chosen model as /v1/models has it; null before the first answer. */
trit.models.current = () =>
  trit.models.list.find((model) => model.id === trit.models.chosen) ?? null;

/** Wait until the chosen model is not being loaded. AbortError with `signal`. */
trit.models.loaded = async (signal) => {
  if (trit.models.current()?.state === "loaded") return;
  await trit.models.refresh();
  while (trit.models.current()?.state === "loading") {
    await new Promise((resolve) => { setTimeout(resolve, POLL_MS / 4); });
    signal.throwIfAborted();
  }
};

/** What /card says of a model; asked for once. Throws Refusal. */
trit.models.card = (id) => {
  if (!cards.has(id)) {
    const asked = get(`/card?model=${encodeURIComponent(id)}`);
    asked.catch(() => cards.delete(id));
    cards.set(id, asked);
  }
  return cards.get(id);
};

/** A choice between the models, always up to date; the name alone where there is no choice. */
trit.models.chooser = () => {
  const select = el("select", { "aria-label": "Model", onchange: () => choose(select.value) });
  const name = el("span", { class: "name" });
  const made = el("div", { class: "chooser" }, select, name);
  choosers.add({ made, select, name });
  draw();
  return made;
};

function choose(id) {
  trit.models.chosen = id;
  trit.kept.set("trit.model", id);
  draw();
  trit.tell("models");
}

function draw() {
  const { list, chosen } = trit.models;
  for (const { made, select, name } of choosers) {
    made.hidden = list.length === 0;
    select.hidden = list.length < 2;
    name.hidden = !select.hidden;
    name.textContent = list[0]?.id ?? "";
    select.replaceChildren(...list.map(({ id, state }) => el("option", {
      value: id, selected: id === chosen,
    }, state === "loaded" ? id : `${id} (${state})`)));
  }
}
