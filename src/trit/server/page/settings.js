// How a conversation is answered: the system prompt, and the settings of the sampler. What is not
// set is the model's own, which is shown in its place.

const { button, el, models } = trit;

const FIELDS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.01,
    hint: "0: always the likeliest. More: more surprise." },
  { name: "top_k", label: "Top k", min: 0, max: 2 ** 31 - 1, step: 1,
    hint: "Out of so many likeliest tokens. 0: out of all." },
  { name: "top_p", label: "Top p", min: 0, max: 1, step: 0.01,
    hint: "Out of the likeliest with this probability together. 1: out of all." },
  { name: "min_p", label: "Min p", min: 0, max: 1, step: 0.01,
    hint: "Out of those with this part of the likeliest one's probability. 0: out of all." },
  { name: "repeat_penalty", label: "Repeat penalty", min: 0.01, max: 100, step: 0.01,
    hint: "Above 1: what was just said becomes less likely." },
  { name: "seed", label: "Seed", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, own: "random",
    hint: "With a seed, the same question gets the same answer." },
  { name: "max_tokens", label: "Most tokens", min: 1, max: 2 ** 31 - 1, step: 1, own: "no limit",
    hint: "Where an answer is cut." },
];

trit.settings = {
  /** What of given settings, by name, is known and in its range. */
  sane(given) {
    const good = ({ name, min, max, step }) => Number.isFinite(given?.[name]) &&
      given[name] >= min && given[name] <= max && (step < 1 || Number.isInteger(given[name]));
    return Object.fromEntries(FIELDS.filter(good).map(({ name }) => [name, given[name]]));
  },

  /** A form of them; `current` gives the conversation, `onchange` is told of every change. */
  form(current, onchange) {
    const system = el("textarea", {
      id: "system", rows: 4, "aria-describedby": "system-hint",
      oninput: () => { current().system = system.value; onchange(); },
    });
    const fields = FIELDS.map((field) => row(field, current, onchange));
    const reset = button("Back to the model's own", () => {
      current().settings = {};
      form.show();
      onchange();
    });
    const form = el("form", { class: "settings", onsubmit: (event) => event.preventDefault() },
      el("div", { class: "field" }, el("label", { for: "system" }, "System prompt"), system,
        el("p", { class: "hint", id: "system-hint" }, "Who the model is and how it should answer.")),
      fields.map((field) => field.row), reset);
    /** Show what the current conversation has, and the model's own. */
    form.show = () => {
      if (document.activeElement !== system) system.value = current().system;
      fields.forEach((field) => field.show());
    };
    return form;
  },
};

function row({ name, label, min, max, step, own, hint }, current, onchange) {
  const input = el("input", {
    id: `set-${name}`, type: "number", min, max, step, inputMode: step < 1 ? "decimal" : "numeric",
    "aria-describedby": `hint-${name}`, oninput: change,
  });
  const wrong = el("p", { class: "wrong", role: "alert", hidden: true });
  function change() {
    const { settings } = current();
    wrong.hidden = input.validity.valid;
    wrong.textContent = wrong.hidden ? "" : `Not used: expected ${expected(min, max, step)}.`;
    if (input.value === "" || !input.validity.valid) delete settings[name];
    else settings[name] = Number(input.value);
    onchange();
  }
  function show() {
    if (document.activeElement === input) return;  // somebody is writing in it
    input.value = current().settings[name] ?? "";
    input.placeholder = own ?? trit.number(models.current()?.meta?.sampling[name] ?? NaN);
    if (input.placeholder === "NaN") input.placeholder = "the model's";
    wrong.hidden = true;
  }
  const made = el("div", { class: "field" }, el("label", { for: input.id }, label), input,
    el("p", { class: "hint", id: `hint-${name}` }, hint), wrong);
  return { row: made, show };
}

function expected(min, max, step) {
  const kind = step < 1 ? "a number" : "a whole number";
  return max > 1000 ? `${kind}, ${min} or more` : `${kind} from ${min} to ${max}`;
}
