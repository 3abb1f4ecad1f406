// The blind test: two answers side by side, at one pace for both, and a vote without names.
//
// The server sends both answers whole; that they appear bit by bit, so many characters a second
// whoever wrote them, is this page's doing. Who votes is a random name kept in this browser.

const { button, el, get, kept, post, say } = trit;
const PACE = 160;  // characters a second, of each answer
const CHOICES = [
  ["1", "1 is better", "1"], ["tie", "Tie", "t"], ["bad", "Neither is any good", "n"],
  ["2", "2 is better", "2"],
];
const BELIEFS = [["1", "Answer 1", "1"], ["unsure", "No idea", "n"], ["2", "Answer 2", "2"]];

let parts = null;  // elements of the view
let turn = null;  // as /compare/next has it
let reveal = null;  // the answers while they appear
let keys = new Map();  // what a key does now

let name = kept.get("trit.voter");

function voter() {
  if (name === null) {
    const bytes = crypto.getRandomValues(new Uint8Array(12));
    name = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    kept.set("trit.voter", name);
  }
  return name;
}

/** Ask the server, and show what it answers; a failure is said, and may be tried again. */
async function step(path, body, then) {
  enable([]);
  try {
    await then(await post(path, body));
  } catch (error) {
    trit.fail(error, () => step("/compare/next", { voter: voter() }, show));
  }
}

const next = () => step("/compare/next", { voter: voter() }, show);
const undo = () => step("/compare/undo", { voter: voter() }, show);

function open(section) {
  const answers = [1, 2].map((number) => {
    const text = el("div", { class: "text", tabIndex: 0, role: "group",
      "aria-label": `Text of answer ${number}` });
    const title = el("h2", {}, `Answer ${number}`);
    return { title, text, article: el("article", {}, title, text) };
  });
  parts = {
    section, answers,
    title: el("h1", { tabIndex: -1 }, "Blind test"),
    progress: el("progress", { "aria-label": "Comparisons voted on" }),
    count: el("p", { class: "count" }),
    prompt: el("blockquote", { class: "prompt" }),
    pair: el("div", { class: "pair" }, answers.map((answer) => answer.article)),
    question: el("p", { id: "blind-question" }),
    buttons: el("div", { class: "choices", role: "group", "aria-labelledby": "blind-question" }),
    undo: button("Undo the last vote", undo),
    results: el("div", { class: "results" }),
    look: button("Results", () => results()),
    asking: trit.asking(voter, () => turn !== null && turn.presentation === null, next),
  };
  section.append(
    el("header", {}, parts.title, parts.count, parts.progress),
    el("div", { class: "comparison" }, parts.prompt, parts.pair),
    el("div", { class: "ballot" }, parts.question, parts.buttons),
    el("footer", {}, parts.undo, parts.look),
    parts.asking.element,
    parts.results,
  );
  trit.key("1 2", "that answer is better (blind test)");
  trit.key("t n", "a tie; neither is any good");
  trit.key("s u", "show all of both answers; undo the last vote");
  section.tabIndex = -1;  // letters are keys only while the view has the focus
  section.addEventListener("keydown", pressed);
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("textarea")) return;
  keys.get(event.key.toLowerCase())?.();
}

/** Buttons in place of those there are; each is [label, key, what it does]. */
function enable(choices) {
  keys = new Map(choices.map(([, key, action]) => [key, action]));
  parts.buttons.replaceChildren(...choices.map(([label, key, action]) => el("button", {
    type: "button", class: "vote", onclick: action, "aria-keyshortcuts": key,
  }, label, " ", el("kbd", { "aria-hidden": "true" }, key))));
  parts.undo.disabled = choices.length === 0 || turn === null || turn.voted === 0;
  if (!parts.undo.disabled) keys.set("u", undo);
}

function show(given) {
  turn = given;
  const shown = turn.presentation;
  parts.progress.max = Math.max(1, turn.planned);
  parts.progress.value = turn.voted;
  parts.section.classList.toggle("over", shown === null);
  parts.results.replaceChildren();
  parts.asking.room(turn.own);
  parts.asking.shown();
  if (shown === null) return allVoted();
  parts.count.textContent = `Comparison ${turn.voted + 1} of ${turn.planned}`;
  parts.prompt.textContent = shown.prompt;
  parts.answers.forEach(({ title }, place) => {
    title.textContent = `Answer ${place + 1}${shown.names ? `: ${shown.names[place]}` : ""}`;
  });
  parts.question.textContent = "";
  enable([["Show all", "s", () => reveal.finish()]]);
  reveal?.stop();
  reveal = appear(shown.answers, () => {
    parts.question.textContent = "Which answer is better?";
    enable(CHOICES.map(([choice, label, key]) => [label, key, () => vote(choice)]));
    say("Both answers are there. Which is better?");
  });
  parts.title.focus({ preventScroll: true });
  scrollTo({ top: 0 });
}

/** Let both texts appear at PACE; at once where motion is not wanted. */
function appear(texts, done) {
  const points = texts.map((text) => Array.from(text));
  const begun = performance.now();
  let frame = 0;
  const draw = (count) => parts.answers.forEach(({ text, article }, place) => {
    text.textContent = points[place].slice(0, count).join("");
    article.setAttribute("aria-busy", String(count < points[place].length));
  });
  const stop = () => cancelAnimationFrame(frame);
  const finish = () => {
    stop();
    draw(Infinity);
    done();
  };
  const tick = (now) => {
    const count = Math.floor(Math.max(0, now - begun) / 1000 * PACE);
    if (count >= Math.max(...points.map((one) => one.length))) return finish();
    draw(count);
    frame = requestAnimationFrame(tick);
  };
  draw(0);
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) frame = requestAnimationFrame(finish);
  else frame = requestAnimationFrame(tick);
  return { stop, finish };
}

function vote(choice) {
  const { token } = turn.presentation;
  step("/compare/votes", { token, choice }, () => {
    turn.voted += 1;
    if (!turn.ask_belief) return next();
    parts.question.textContent = "Which one do you believe comes from the heavier file?";
    enable(BELIEFS.map(([heavier, label, key]) => [label, key, () =>
      step("/compare/beliefs", { token, heavier }, next)]));
    parts.buttons.firstChild.focus();
    say(parts.question.textContent);
  });
}

function allVoted() {
  parts.count.textContent = turn.planned === 0
    ? "There is nothing to vote on here yet."
    : `All ${turn.planned} comparisons are voted on. Thank you.`;
  parts.question.textContent = "";
  enable([]);
  parts.undo.disabled = turn.voted === 0;
  if (turn.planned > 0) results();
}

// Results. Names are in them, so the server keeps them back until one pass is voted on.

async function results() {
  let found;
  try {
    found = await get("/compare/results");
  } catch (error) {
    return trit.fail(error, results);
  }
  const title = el("h2", { tabIndex: -1 }, "Results");
  if (found.results === null) {
    parts.results.replaceChildren(title, el("p", {},
      `They are kept back until ${found.planned} comparisons are voted on; ` +
      `${found.votes} are by now. Seeing them grow would tell which side is which.`));
  } else {
    parts.results.replaceChildren(title, ...report(found.results));
  }
  title.focus();
}

function report(found) {
  const letters = new Map(found.models.map(({ name }, place) => [name, letter(place)]));
  const named = (pairs) => pairs.filter((pair) => pair.score !== null).map((pair) => ({
    ...pair, heavier: letters.get(pair.heavier), lighter: letters.get(pair.lighter),
  }));
  const shown = named(found.pairs);
  const made = [
    el("p", {}, `Votes: ${found.votes}, voters: ${found.voters}, prompts: ${found.prompts}. ` +
      "Every interval is of 95%."),
    table("Models, the heaviest first", ["Model", "Type", "Size", "Elo"],
      found.models.map((model, place) => [`${letter(place)}: ${model.name}`, model.type,
        trit.size(model.bytes),
        place === 0 || found.strengths === null ? "0" : range(found.strengths[place], 1)])),
    table("Pairs", ["Pair", "Score, %", "Won", "Lost", "Tied", "Both bad", "Same text"],
      shown.map((pair) => [versus(pair), range(pair.score, 100), pair.wins, pair.losses,
        pair.ties, pair.bad, pair.same])),
    intervals(shown),
    ...own(found.own),
    el("ul", {}, shown.map((pair) => el("li", {}, verdict(pair)))),
  ];
  const { right, liked, heavier, gap } = found.beliefs;
  if (right !== null) {
    made.push(el("p", {}, `The heavier file was named ${found.beliefs.said} times, rightly in ` +
      `${range(right, 100)}%.` + (gap === null ? "" : ` What was preferred was believed to be the ` +
      `heavier in ${range(liked, 100)}%, and was in ${range(heavier, 100)}%: a confidence gap of ` +
      `${range(gap, 100)} points.`)));
  }
  for (const judge of found.judgements) {
    made.push(table(`Judge ${judge.name}, a machine, by likelihood; not among the votes`,
      ["Pair", "Score, %", "Won", "Lost", "Tied", "Same text"],
      named(judge.pairs).map((pair) => [versus(pair), range(pair.score, 100), pair.wins,
        pair.losses, pair.ties, pair.same])));
  }
  return made;
}

function own({ prompts, voters, votes }) {
  return prompts === 0 ? [] : [el("p", {}, `Prompts that voters asked themselves: ${prompts}, of ` +
    `voters: ${voters}; votes on their answers: ${votes}. They are in none of these figures.`)];
}

const letter = (place) => String.fromCharCode(65 + place);
const versus = (pair) => `${pair.heavier} over ${pair.lighter}`;

function verdict(pair) {
  const p = pair.p < 0.001 ? "p < .001" : `p = ${trit.number(pair.p, 2)}`;
  const about = `${versus(pair)}: `;
  if (pair.told) {
    const better = pair.wins > pair.losses ? pair.heavier : pair.lighter;
    return `${about}people can tell, ${better} is preferred (${p}).`;
  }
  if (pair.alike) return `${about}neither is preferred by more than 10 points (${p}).`;
  const more = pair.more_votes === null ? ""
    : ` If the votes so far are the truth, about ${trit.number(pair.more_votes)} more on new ` +
      "prompts would show it.";
  return `${about}not settled (${p}).${more}`;
}

const range = (value, factor) => {
  const [middle, low, high] = [value.value, value.low, value.high]
    .map((each) => String(Math.round(each * factor)).replace("-", "\u2212"));
  return `${middle} (${low} to ${high})`;
};

function table(caption, heads, rows) {
  return el("div", { class: "scrolled", tabIndex: 0, role: "region", "aria-label": caption },
    el("table", {}, el("caption", {}, caption),
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, rows.map(([first, ...rest]) => el("tr", {},
        el("th", { scope: "row" }, first), rest.map((cell) => el("td", {}, String(cell))))))));
}

/** Scores with their intervals, drawn; the table before says the same. */
function intervals(pairs) {
  const [row, left, width] = [34, 8, 304];
  const svg = draw("svg", {
    viewBox: `0 0 ${width + 2 * left} ${row * pairs.length + 22}`, class: "intervals", role: "img",
    "aria-label": "The scores of the table with their intervals, and a line at 50%",
  });
  const x = (share) => left + width * share;
  const bottom = row * pairs.length;
  for (const share of [0, 0.5, 1]) {
    svg.append(
      draw("line", { class: share === 0.5 ? "half" : "edge", x1: x(share), x2: x(share), y1: 0,
        y2: bottom }),
      draw("text", { x: x(share), y: bottom + 15, "text-anchor":
        share === 0 ? "start" : share === 1 ? "end" : "middle" }, `${100 * share}%`));
  }
  pairs.forEach((pair, place) => {
    const { score } = pair;
    const y = row * place + 22;
    svg.append(
      draw("text", { x: x(0) + 4, y: y - 9 }, versus(pair)),
      draw("line", { class: "range", x1: x(score.low), x2: x(score.high), y1: y, y2: y }),
      draw("circle", { class: "point", cx: x(score.value), cy: y, r: 4 }));
  });
  return svg;
}

function draw(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(text);
  return made;
}

trit.view({
  name: "blind",
  title: "Blind test",
  needs: "/compare",
  open,
  show() { if (turn === null) next(); },
});
