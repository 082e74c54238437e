"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const percent = (x, digits = 1) => (x === null ? "–" : (100 * x).toFixed(digits) + "%");

/** An element with attributes and children; text goes in as text, never as markup. */
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "rect", "line", "text", "circle"].includes(tag);
  const node = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** The most expensive working point within the budget; a policy fitted for few budgets has few. */
function pointOf(policy, budget) {
  let i = 0;
  policy.budget.forEach((b, j) => { if (b <= budget + 1e-6) i = j; });
  return i;
}

const ring = make("circle", { r: 7, fill: "none", "stroke-width": 2.2, style: "stroke: var(--ink)" });
document.querySelector("#figure-curves svg")?.append(ring);

function drawRing(curve, i) {
  const area = at("curves-area").getBBox(), [x, y] = D.limits;
  const part = (value, [low, high]) => (value - low) / (high - low);
  ring.setAttribute("cx", area.x + area.width * part(curve.cost[i], x));
  ring.setAttribute("cy", area.y + area.height * (1 - part(curve.quality[i], y)));
}

function drawShares(shares) {
  const words = shares.map((share, k) => `exit ${k + 1}: ${percent(share)}`);
  at("shares").setAttribute("aria-label", words.join(", "));
  at("shares").replaceChildren(...shares.map((share, k) =>
    make("span", { style: `flex: ${share} 1 0; background: var(--e${k}); color: var(--on${k})` },
      share >= 0.06 ? percent(share, 0) : "")));
  at("legend").replaceChildren(...words.map((word, k) =>
    make("li", {}, make("i", { style: `background: var(--e${k})` }), word)));
}

function drawScores(policy, i) {
  const width = 220, height = 110, bins = policy.right[i][0]?.length ?? 0, step = width / bins;
  at("scores")?.replaceChildren(...policy.right[i].map((right, k) => {
    const wrong = policy.wrong[i][k], top = Math.max(1, ...right.map((n, b) => n + wrong[b]));
    const cut = policy.thresholds[i][k], arrived = right.concat(wrong).reduce((a, n) => a + n, 0);
    const words = `exit ${k + 1}: ${Math.round(arrived)} get here`;
    const chart = make("svg", { viewBox: `-4 0 ${width + 8} ${height + 36}`, role: "img",
      "aria-label": `${words}, threshold at rank ${percent(cut, 0)}` },
      make("text", { x: 0, y: 12 }, words));
    right.forEach((n, b) => {
      const low = (n / top) * height, high = (wrong[b] / top) * height, x = b * step + 0.6;
      chart.append(
        make("rect", { class: "right", x, width: step - 1.2, y: 20 + height - low, height: low }),
        make("rect", { class: "wrong", x, width: step - 1.2, y: 20 + height - low - high, height: high }));
    });
    const base = 20 + height;
    chart.append(make("line", { class: "base", x1: 0, x2: width, y1: base, y2: base }),
      make("line", { class: "cut", x1: cut * width, x2: cut * width, y1: 16, y2: base + 4 }),
      make("text", { x: 0, y: base + 13 }, "unsure"),
      make("text", { x: width, y: base + 13, "text-anchor": "end" }, "sure"));
    return chart;
  }));
}

function drawClasses(rows) {
  if (!rows) return;
  const exits = rows[0].map((_, k) => make("th", { scope: "col" }, `exit ${k + 1}`));
  const cells = (row) => row.map((share) => make("td", {
    style: `background: color-mix(in srgb, var(--c0) ${(60 * share).toFixed(0)}%, transparent)` },
    percent(share, 0)));
  at("classes")?.replaceChildren(
    make("thead", {}, make("tr", {}, make("th", {}, "class"), ...exits)),
    make("tbody", {}, ...rows.map((row, c) =>
      make("tr", {}, make("th", { scope: "row" }, D.classes[D.class_order[c]]), ...cells(row)))));
}

function tile(s, k) {
  const sample = D.examples[s], found = make("figure", { class: "tile" });
  const truth = D.labels && D.classes[D.labels[s]], answer = D.answers && D.classes[D.answers[k][s]];
  const right = truth === answer;
  if (sample.text) found.append(make("q", {}, sample.text));
  for (const [uri, what] of [[sample.image, truth ?? "scene"], [sample.answers?.[k], "answer at the exit"],
    [sample.mask, "labels"]]) {
    const tiny = uri === sample.image && uri?.startsWith("data:image/png");
    if (uri) found.append(make("img", { src: uri, alt: what, class: tiny ? "tiny" : "" }));
  }
  if (sample.mask) found.append(`mean IoU ${D.example_quality[k][s].toFixed(2)}`);
  else if (D.labels) found.append(right ? `✓ ${answer}` : make("strong", {}, `✗ ${answer}`), right ? "" : `, is ${truth}`);
  return found;
}

function drawExamples(exits, shares) {
  if (!D.examples.length) return;
  const kind = D.examples[0].text ? "texts" : D.examples[0].mask ? "scenes" : "";
  at("examples").replaceChildren(...shares.map((share, k) => {
    const some = exits.map((e, s) => [e, s]).filter(([e]) => e === k).slice(0, { texts: 5, scenes: 4 }[kind] ?? 6);
    const none = share > 0 && !some.length ? ", none of those kept in this page" : "";
    return make("div", { class: "exit" },
      make("h3", {}, `exit ${k + 1} `, make("span", {}, `${percent(share)} of the samples leave here${none}`)),
      make("div", { class: `tiles ${kind}` }, ...some.map(([, s]) => tile(s, k))));
  }));
}

function drawNumbers() {
  const heads = ["policy", "budget", "cost used", D.measure, "95% interval",
    ...D.exit_quality.map((_, k) => `exit ${k + 1}`)];
  const bodies = Object.entries(D.curves).map(([name, curve]) => make("tbody", {}, ...D.budgets.map((budget, j) => {
    const i = pointOf(curve, budget), interval = [curve.low[i], curve.high[i]].map((x) => (100 * x).toFixed(1));
    const cells = [budget.toFixed(2), curve.cost[i].toFixed(3), percent(curve.quality[i]), interval.join(" to "),
      ...D.policies[name].shares[i].map((share) => percent(share))].map((text) => make("td", {}, text));
    const head = make("th", { scope: "rowgroup", rowspan: D.budgets.length }, name);
    return make("tr", {}, ...(j ? [] : [head]), ...cells);
  })));
  at("numbers").replaceChildren(
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))), ...bodies);
}

/** The numbers as they are shown, as CSV or as a LaTeX table (package booktabs). */
function copied(kind) {
  const rows = [...at("numbers").rows].map((row) => [...row.cells].map((cell) => cell.textContent));
  let policy = "";  // only in the first row of its group
  for (const row of rows.slice(1))
    if (row.length < rows[0].length) row.unshift(policy); else policy = row[0];
  if (kind === "CSV")
    return rows.map((row) => row.map((x) => `"${x.replaceAll('"', '""')}"`).join(",")).join("\n");
  const [head, ...body] = rows.map((row) =>
    row.map((x) => x.replace(/[&%#_$]/g, "\\$&")).join(" & ") + " \\\\");
  return [`\\begin{tabular}{l${"r".repeat(rows[0].length - 1)}}`, "\\toprule", head, "\\midrule", ...body,
    "\\bottomrule", "\\end{tabular}"].join("\n");
}

function update() {
  const name = at("policy").value, policy = D.policies[name], curve = D.curves[name], budget = D.grid[at("stop").value];
  const i = pointOf(policy, budget), full = D.exit_quality.at(-1);
  const own = Math.abs(policy.budget[i] - budget) > 1e-6 ? ` (fitted for ${policy.budget[i].toFixed(2)})` : "";
  const lead = 100 * (curve.quality[i] - full);
  const strong = (text) => make("b", {}, text);
  at("budget").replaceChildren(strong(budget.toFixed(2)), own);
  at("quality").replaceChildren(strong(percent(curve.quality[i])),
    ` ${D.measure}, ${lead < 0 ? "−" : "+"}${Math.abs(lead).toFixed(1)} to the full network`);
  at("cost").replaceChildren(strong(curve.cost[i].toFixed(3)), " cost used");
  at("saved").replaceChildren(strong(percent(1 - curve.cost[i], 0)), " saved");
  at("stop").setAttribute("aria-valuetext", `budget ${budget.toFixed(2)}`);
  drawRing(curve, i);
  drawShares(policy.shares[i]);
  drawScores(policy, i);
  drawClasses(policy.classes?.[i]);
  drawExamples(D.example_exits[name][i], policy.shares[i]);
}

for (const button of document.querySelectorAll("[data-copy]"))
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(copied(button.dataset.copy));
    button.textContent = `${button.dataset.copy} copied`;
  });
at("policy").addEventListener("change", update);
at("stop").addEventListener("input", update);
drawNumbers();
update();
