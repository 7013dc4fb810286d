// Making elements, and figures as people read them.

const $ = (id) => document.getElementById(id);

// el("button", {type: "button", "aria-label": "x", onclick: f}, "text", child, ...)
function el(tag, props = {}, ...children) {
  return dress(document.createElement(tag), props, children);
}

function svg(tag, props = {}, ...children) {
  return dress(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
}

function dress(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") node[name] = value;
    else if (name === "style") Object.entries(value).forEach(([k, v]) => node.style.setProperty(k, v));
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

// Sets what differs, and leaves alone what does not: screen readers and selections keep their place.
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setAttributes(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null) node.removeAttribute(name);
    else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  }
}

// The children of `list` become those of `items`, in their order: kept by key, made if new. Several
// items may have one key.
function keep(list, items, keyOf, make, update) {
  const old = new Map();
  for (const child of list.children) {
    const same = old.get(child.dataset.key);
    if (same) same.push(child);
    else old.set(child.dataset.key, [child]);
  }
  let place = list.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let node = old.get(key)?.shift();
    if (!node) {
      node = make(item);
      node.dataset.key = key;
    }
    if (node === place) place = place.nextElementSibling;
    else list.insertBefore(node, place);
    if (update) update(node, item);
  }
  for (const nodes of old.values()) nodes.forEach((node) => node.remove());
}

function digits(value) {
  if (value >= 100) return value.toFixed(0);
  if (value >= 10) return value.toFixed(1);
  return value.toFixed(2);
}

function formatMs(ms) {
  if (ms === undefined || ms === null) return "–";
  if (ms >= 60000) return `${digits(ms / 60000)} min`;
  if (ms >= 1000) return `${digits(ms / 1000)} s`;
  return `${digits(ms)} ms`;
}

function formatBytes(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) {
    bytes /= 1000;
    ++unit;
  }
  return `${unit === 0 ? bytes.toFixed(0) : digits(bytes)} ${units[unit]}`;
}

function formatCount(count) {
  if (count >= 1e9) return `${digits(count / 1e9)} G`;
  if (count >= 1e6) return `${digits(count / 1e6)} M`;
  if (count >= 1e4) return `${digits(count / 1e3)} k`;
  return String(Math.round(count));
}

function formatRate(rate) {
  if (rate === 0) return "0";
  return rate >= 1000 ? formatCount(rate) : digits(rate);
}

function formatAgo(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

// Never 100 % where something is missing.
function formatPercent(share) {
  const percent = 100 * share;
  if (share < 1 && percent > 99.9) return "99.9 %";
  return `${percent >= 99.95 || percent < 10 ? percent.toFixed(percent === 0 || percent === 100 ? 0 : 1) : percent.toFixed(1)} %`;
}

const plural = (count, one, many = `${one}s`) => `${formatCount(count)} ${count === 1 ? one : many}`;
const sum = (values) => values.reduce((total, value) => total + value, 0);
const byName = new Intl.Collator("en", { numeric: true }).compare;

function quantile(values, q) {
  if (values.length === 0) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
}
