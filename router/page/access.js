// Keys, which stay in this tab, and what is asked of the router with them.

const keys = {
  get(name) {
    try {
      return sessionStorage.getItem(`baton-${name}-key`) ?? "";
    } catch {
      return this.forgetful[name] ?? "";
    }
  },
  set(name, value) {
    this.forgetful[name] = value;
    try {
      if (value) sessionStorage.setItem(`baton-${name}-key`, value);
      else sessionStorage.removeItem(`baton-${name}-key`);
    } catch {
      // A browser that keeps nothing: as long as the page is open.
    }
  },
  forgetful: {},
};

const viewKey = () => keys.get("view");
const chatKey = () => keys.get("chat") || keys.get("view");

function ask(path, key, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.authorization = `Bearer ${key}`;
  return fetch(path, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
}

// What the router says of an error, in a sentence.
async function errorOf(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `The router answered ${answer.status}`;
  }
}

function setUpKeys(changed) {
  const dialog = $("key-dialog");
  const show = () => {
    if (dialog.open) return; // somebody may be writing in it
    $("view-key").value = keys.get("view");
    $("chat-key").value = keys.get("chat");
    dialog.showModal();
  };
  $("key-button").onclick = show;
  $("key-cancel").onclick = () => dialog.close();
  $("key-form").onsubmit = (event) => {
    event.preventDefault();
    keys.set("view", $("view-key").value.trim());
    keys.set("chat", $("chat-key").value.trim());
    dialog.close();
    changed();
  };
  return show;
}

function setUpTheme() {
  const root = document.documentElement;
  const stored = () => {
    try {
      return localStorage.getItem("baton-theme");
    } catch {
      return null;
    }
  };
  const isDark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  if (["dark", "light"].includes(stored())) root.dataset.theme = stored();
  $("theme-button").onclick = () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("baton-theme", root.dataset.theme);
    } catch {
      // Then it is for now only.
    }
  };
}
