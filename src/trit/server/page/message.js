// One message of a conversation, as an <article>.

const { button, copier, el, markdown, number, tree } = trit;

const ENDS = {
  length: "Cut: it has as many tokens as it may have, or the context is full.",
  stopped: "Stopped.",
  lost: "The page was closed in the middle of this answer.",
};

const drafts = new WeakMap();  // what is being made of a message, by its node: redrawn, not lost

/**
 * Draw the message at a place of a conversation. `busy`: it is being written, `free`: something else
 * may be. `act` has what buttons do: again(at), choose(at), edit(at, text), which is whether it was.
 * The element's update() shows what was added to an answer.
 */
trit.message = (talk, at, busy, free, act) => {
  const node = talk.nodes[at];
  const body = el("div", { class: "body" });
  const notes = el("p", { class: "notes" });
  const who = node.role === "user" ? "You" : node.model ?? "Model";
  const made = el("article", { class: node.role, "aria-label": who, "aria-busy": String(busy) },
    el("h2", { class: node.role === "user" ? "unseen" : "who" }, who), body);
  if (node.role === "user") body.textContent = node.content;
  else {
    const thought = reasoning();
    made.append(notes);
    body.before(thought);
    made.update = (state = "") => {
      thought.show(node, busy);
      markdown(node.content, body);
      notes.textContent = state || ENDS[node.finish] || "";
      notes.hidden = notes.textContent === "";
    };
    made.update();
    if (node.error) made.append(failure(node.error, free ? () => act.again(at) : null));
  }
  if (!busy) made.append(actions(talk, at, free, act, made, body));
  if (drafts.has(node)) edit(node, at, act, made, body);
  return made;
};

/** What a model thinks before it answers, folded. */
function reasoning() {
  const words = el("div", { class: "body" });
  const title = el("summary");
  const made = el("details", { class: "thought", hidden: true }, title, words);
  made.show = (node, busy) => {
    if (!node.reasoning) return;
    made.hidden = false;
    title.textContent = busy && !node.content ? "Thinking…" : "What it thought";
    markdown(node.reasoning, words);
  };
  return made;
}

function failure(words, again) {
  return el("div", { class: "failure", role: "alert" }, el("p", {}, words),
    again && button("Try again", again, { "data-act": "again" }));
}

/** The row below: branches, what can be done, what it took. */
function actions(talk, at, free, act, made, body) {
  const node = talk.nodes[at];
  const other = node.role === "user"
    ? button("Edit", () => edit(node, at, act, made, body).focus(), {
      disabled: !free, "data-act": "edit",
    })
    : button("Regenerate", () => act.again(at), {
      disabled: !free, "data-act": "again", title: "Another answer, as a branch beside this one",
    });
  return el("div", { class: "actions" }, branches(talk, at, free, act),
    copier("the message", () => node.content), other,
    node.stats ? el("span", { class: "took" }, trit.took(node.stats)) : null);
}

function branches(talk, at, free, act) {
  const places = tree.siblings(talk, at);
  const mine = places.indexOf(at);
  if (places.length < 2) return null;
  const step = (sign, words, to) => button(sign, () => act.choose(places[to]), {
    "aria-label": words, "data-act": words, disabled: !free || !(to in places),
  });
  return el("span", { class: "branches", role: "group", "aria-label": "Branches" },
    step("‹", "Previous branch", mine - 1),
    el("span", {}, `${mine + 1}/${places.length}`),
    step("›", "Next branch", mine + 1));
}

/** Put a field in the place of a message's text; the field. */
function edit(node, at, act, made, body) {
  const field = el("textarea", {
    value: drafts.get(node) ?? node.content, "aria-label": "Edit your message",
    oninput: () => drafts.set(node, field.value),
  });
  const cancel = () => {
    drafts.delete(node);
    form.replaceWith(body);
    made.querySelector(".actions").hidden = false;
    made.querySelector('[data-act="edit"]').focus();
  };
  const form = el("form", {
    class: "editing",
    onsubmit: (event) => {
      event.preventDefault();
      if (field.value.trim() && act.edit(at, field.value)) drafts.delete(node);
    },
    onkeydown: (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      cancel();
    },
  }, field, el("div", { class: "row" }, button("Cancel", cancel),
    el("button", { class: "firm" }, "Send as a new branch")));
  body.replaceWith(form);
  made.querySelector(".actions").hidden = true;
  trit.grow(field);
  trit.sends(field, () => form.requestSubmit());
  return field;
}

/** "42 tokens · 18.3 a second · the first after 0.4 s" of an answer's figures. */
trit.took = ({ tokens, rate, first, about }) => {
  const parts = [`${about ? "about " : ""}${number(tokens)} ${tokens === 1 ? "token" : "tokens"}`];
  if (rate) parts.push(`${number(rate)} tokens/s`);
  if (first !== undefined) parts.push(`first after ${number(first, 2)} s`);
  return parts.join(" · ");
};

/** Let a field be as high as its text. */
trit.grow = (field) => {
  const fit = () => {
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight + 2}px`;
  };
  field.addEventListener("input", fit);
  requestAnimationFrame(fit);
  return fit;
};

/** Enter in a field calls `send`, Shift-Enter is a new line; without a keyboard Enter is one too. */
trit.sends = (field, send) => field.addEventListener("keydown", (event) => {
  const composing = event.isComposing || event.keyCode === 229;  // a word of another script
  if (event.key !== "Enter" || event.shiftKey || composing) return;
  if (matchMedia("(pointer: coarse)").matches && !event.ctrlKey) return;
  event.preventDefault();
  send();
});
