// The figures at the top, and what became of requests over the last ten minutes.

const WIDTH = 600; // of a chart's picture; it is stretched to its place
const HEIGHT = 116;
const LEFT = 34;
const BOTTOM = 16;
const LEAST_SPAN = 24; // steps
const ENDS = [
  ["met", "--good"],
  ["missed", "--warn"],
  ["refused", "--bad"],
  ["failed", "--worse"],
  ["cancelled", "--gone"],
];
const [MET, MISSED, REFUSED, FAILED] = [0, 1, 2, 3];

// Of those that were promised something: who left early says nothing about it.
const promised = (step) => step[MET] + step[MISSED] + step[REFUSED] + step[FAILED];
const addSteps = (a, b) => a.map((count, i) => count + b[i]);
const noEnds = () => ENDS.map(() => 0);

// All classes together, by step.
function allEnds(state) {
  const steps = state.classes[0].steps.map(noEnds);
  for (const each of state.classes) each.steps.forEach((step, i) => (steps[i] = addSteps(steps[i], step)));
  return steps;
}

// The last seconds in one: whole steps and the one under way.
function lastEnds(steps, seconds, state) {
  const last = steps.slice(-1 - Math.ceil(seconds / state.step_s));
  return { ends: last.reduce(addSteps, noEnds()), seconds: Math.max(1, (last.length - 1) * state.step_s + state.step_age_s) };
}

const rates = []; // of tokens: [seconds, output, prompt] as polled

function tokenRate(state) {
  rates.push([state.up_s, state.output_tokens, state.prompt_tokens]);
  while (rates.length > 2 && rates.at(-1)[0] - rates[0][0] > 6) rates.shift();
  if (rates.length > 1 && rates.at(-1)[0] < rates.at(-2)[0]) rates.splice(0, rates.length - 1);
  const [first, last] = [rates[0], rates.at(-1)];
  const seconds = last[0] - first[0];
  return seconds > 0 ? [1, 2].map((i) => (last[i] - first[i]) / seconds) : [0, 0];
}

function figuresOf(state) {
  const steps = allEnds(state);
  const minute = lastEnds(steps, 60, state);
  const five = lastEnds(steps, 300, state).ends;
  const attained = promised(five) > 0 ? five[MET] / promised(five) : undefined;
  const [output, prompt] = tokenRate(state);
  const measured = (field) => state.requests.map((r) => r[field]).filter((ms) => ms !== undefined);
  const ttft = measured("ttft_ms");
  const tpot = measured("tpot_ms");
  const refusedNow = sum(state.refusals.map((each) => sum(each.steps.slice(-13))));
  const ready = sum(state.pools.map((p) => p.ready));
  return [
    {
      name: "Goodput",
      value: formatRate(minute.ends[MET] / minute.seconds),
      unit: "requests/s",
      more: `of ${formatRate(promised(minute.ends) / minute.seconds)} asked for`,
      title: "requests that met their targets, in the last minute",
    },
    {
      name: "Targets met",
      value: attained === undefined ? "–" : formatPercent(attained),
      more: attained === undefined ? "none in 5 minutes" : `of ${formatCount(promised(five))} in 5 minutes`,
      mood: attained === undefined || attained >= 0.99 ? null : attained >= 0.9 ? "warn" : "bad",
    },
    {
      name: "TTFT, median",
      value: formatMs(quantile(ttft, 0.5)),
      more: ttft.length ? `longest ${formatMs(Math.max(...ttft))}` : "of the last requests",
      title: `of the last ${plural(ttft.length, "request")}`,
    },
    {
      name: "TPOT, median",
      value: formatMs(quantile(tpot, 0.5)),
      more: tpot.length ? `longest ${formatMs(Math.max(...tpot))}` : "of the last requests",
      title: `of the last ${plural(tpot.length, "request")}`,
    },
    {
      name: "Output",
      value: formatCount(output),
      unit: "tokens/s",
      more: `${formatCount(prompt)} prompt tokens/s`,
    },
    {
      name: "In flight",
      value: formatCount(state.in_flight),
      unit: state.in_flight === 1 ? "request" : "requests",
      more: ready === 0 ? "no worker is ready" : `${formatCount(refusedNow)} refused in a minute`,
      title: `${formatCount(state.queued)} wait for a worker`,
      mood: ready === 0 ? "bad" : null,
    },
  ];
}

function showFigures(state) {
  keep($("figures"), figuresOf(state), (figure) => figure.name,
    (figure) => el("dl", { class: "figure" }, el("dt", {}, figure.name), el("dd", { class: "value" }), el("dd", { class: "more" })),
    (node, figure) => {
      const [, value, more] = node.children;
      const text = figure.value + (figure.unit ?? "");
      if (value.textContent !== text) {
        value.replaceChildren(figure.value, ...(figure.unit ? [el("small", {}, figure.unit)] : []));
      }
      setText(more, figure.more);
      setAttributes(node, { "data-mood": figure.mood, title: figure.title });
    });
}

// --- charts --------------------------------------------------------------------------------------

let span = LEAST_SPAN; // steps that a chart shows: those there are, two minutes at least

// `ago`: steps before the one under way.
const xAt = (ago, width) => LEFT + (width - LEFT) * (1 - ago / (span - 1));
const yAt = (share) => 4 + (HEIGHT - BOTTOM - 8) * (1 - share);

function frame(width, marks, stepSeconds) {
  const lines = marks.flatMap(([share, label]) => [
    svg("line", { class: "grid", x1: LEFT, x2: width, y1: yAt(share), y2: yAt(share) }),
    svg("text", { x: LEFT - 6, y: yAt(share) + 3.5, "text-anchor": "end" }, label),
  ]);
  const first = span - 1;
  const ago = (steps) => `${formatAgo(steps * stepSeconds)} ago`;
  const times = [[first, "start", ago(span)], [first / 2, "middle", ago(span / 2)], [0, "end", "now"]].map(([at, anchor, label]) =>
    svg("text", { x: xAt(at, width), y: HEIGHT - 2, "text-anchor": anchor }, label));
  return [...lines, ...times];
}

function picture(place, label, draw) {
  const width = Math.max(240, Math.round(place.clientWidth) || WIDTH);
  place.replaceChildren(svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label }, ...draw(width)));
}

// Six steps together, half a minute, where requests are few; without any, there is a gap.
function curveOf(steps, width, bottom) {
  const points = steps.map((_, i) => {
    const near = steps.slice(Math.max(0, i - 5), i + 1).reduce(addSteps, noEnds());
    return promised(near) > 0 ? [steps.length - 1 - i, near[MET] / promised(near)] : null;
  });
  let path = "";
  points.forEach((point, i) => {
    if (!point) return;
    const y = yAt(Math.max(0, (point[1] - bottom) / (1 - bottom)));
    path += `${points[i - 1] ? "L" : "M"}${xAt(point[0], width).toFixed(1)} ${y.toFixed(1)}`;
    if (!points[i - 1] && !points[i + 1]) path += "h2";
  });
  return path;
}

const classColor = (i) => `var(--c${i % 8})`;

function targetsOf(each) {
  const parts = [
    each.ttft_ms !== undefined && `TTFT ≤ ${formatMs(each.ttft_ms)}`,
    each.tpot_ms !== undefined && `TPOT ≤ ${formatMs(each.tpot_ms)}`,
    each.best_effort && "best effort",
  ].filter(Boolean);
  return parts.length ? parts.join(", ") : "no targets";
}

function showCharts(state) {
  span = Math.max(LEAST_SPAN, state.classes[0].steps.length);
  showAttainment(state);
  showEnds(state);
}

function showAttainment(state) {
  const totals = state.classes.map((each) => each.steps.reduce(addSteps, noEnds()));
  const shares = totals.map((ends) => (promised(ends) > 0 ? ends[MET] / promised(ends) : undefined));
  const lowest = Math.min(1, ...shares.filter((share) => share !== undefined));
  const bottom = lowest >= 0.97 ? 0.9 : lowest >= 0.75 ? 0.5 : 0;
  const marks = [1, (1 + bottom) / 2, bottom].map((share) => [(share - bottom) / (1 - bottom), `${Math.round(100 * share)} %`]);
  const label = state.classes.map((each, i) => `${each.name} ${shares[i] === undefined ? "none" : formatPercent(shares[i])}`).join(", ");
  picture($("attainment"), `Targets met, by class: ${label}`, (width) => [
    ...frame(width, marks, state.step_s),
    // Where they lie on one another the first is the widest: none hides the others.
    ...state.classes.map((each, i) =>
      svg("path", {
        class: "curve",
        stroke: classColor(i),
        "stroke-width": 1.75 + 1.75 * (state.classes.length - 1 - i),
        d: curveOf(each.steps, width, bottom),
      })),
  ]);
  keep($("attainment-legend"), state.classes, (each) => each.name,
    () => el("li"),
    (node, each) => {
      const i = state.classes.indexOf(each);
      node.replaceChildren(el("i", { style: { background: classColor(i) } }), each.name,
        el("b", {}, shares[i] === undefined ? "–" : formatPercent(shares[i])), targetsOf(each));
    });
}

function niceMost(most) {
  const power = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  return power * [1, 2, 4, 6, 10].find((step) => step * power >= Math.max(most, 1));
}

function showEnds(state) {
  const steps = allEnds(state);
  const whole = steps.slice(0, -1); // the one under way would look like a drop
  const most = niceMost(Math.max(0, ...whole.map(sum)) / state.step_s);
  const totals = whole.reduce(addSteps, noEnds());
  const label = ENDS.map(([name], i) => `${totals[i]} ${name}`).join(", ");
  picture($("ends"), `What became of requests: ${label}`, (width) => {
    const wide = (width - LEFT) / (span - 1);
    const bars = whole.map((step, i) => {
      const x = xAt(whole.length - i, width);
      let below = 0;
      return step.map((count, kind) => {
        if (count === 0) return null;
        const from = yAt(below / most);
        below += count / state.step_s;
        const to = yAt(below / most);
        return svg("rect", { x: x.toFixed(1), y: to.toFixed(1), width: Math.max(1, wide - 0.8).toFixed(1), height: (from - to).toFixed(2), fill: `var(${ENDS[kind][1]})` });
      });
    });
    return [...frame(width, [[1, formatCount(most)], [0.5, most > 1 ? formatCount(most / 2) : "0.5"], [0, "0"]], state.step_s), ...bars.flat()];
  });
  const present = ENDS.map(([name, color], i) => ({ name, color, count: totals[i] })).filter((each) => each.count > 0 || each.name === "met");
  keep($("ends-legend"), present, (each) => each.name,
    (each) => el("li", {}, el("i", { style: { background: `var(${each.color})` } }), each.name, el("b")),
    (node, each) => setText(node.lastElementChild, formatCount(each.count)));
  const reasons = state.refusals.map((each) => [each.reason, sum(each.steps)]).filter(([, count]) => count > 0);
  reasons.sort((a, b) => b[1] - a[1]);
  const text = reasons.map(([reason, count]) => `${reason} ${formatCount(count)}`).join(" · ");
  setText($("refusals"), text && `Refusals by reason: ${text}`);
}
