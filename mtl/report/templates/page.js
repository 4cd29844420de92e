"use strict";
// The table of trials: thousands of rows are kept as data, and only one page of them stands in the document.
(() => {
  const source = document.getElementById("trial-data");
  const place = document.getElementById("trial-table");
  if (!source || !place) return;
  const data = JSON.parse(source.textContent);
  const PAGE = 50;
  const numeric = data.columns.map((_, i) => data.rows.some((row) => typeof row[i] === "number"));
  const state = { sort: -1, down: false, page: 0, text: "", picks: new Map() };
  let shown = data.rows;

  const make = (tag, text, className) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    return node;
  };
  const print = (value, column) => {
    if (value === null) return "—";
    if (typeof value !== "number") return column.key === "hash" ? String(value).slice(0, 10) : String(value);
    if (column.digits !== null && (value === 0 || Math.abs(value) >= 1e-3)) return value.toFixed(column.digits);
    return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
  };
  const compare = (i) => (a, b) => {
    let x = a[i], y = b[i];
    if (x === null || y === null) return (x === null) - (y === null); // what is unknown stays last
    if (numeric[i]) {
      x = Number(x); y = Number(y);
    }
    const order = x < y ? -1 : x > y ? 1 : 0;
    return state.down ? -order : order;
  };

  const controls = make("div", undefined, "controls");
  const label = make("label", "search");
  const search = make("input");
  search.type = "search";
  label.append(search);
  controls.append(label);
  data.columns.forEach((column, i) => {
    if (!column.pick) return;
    const values = [...new Set(data.rows.map((row) => row[i]))];
    if (values.length < 2 || values.length > 60) return;
    if (numeric[i]) values.sort((a, b) => (a === null) - (b === null) || a - b);
    const pick = make("label", column.title);
    const select = make("select");
    select.append(make("option", "all"));
    for (const value of values) select.append(make("option", print(value, column)));
    select.addEventListener("change", () => {
      if (select.selectedIndex) state.picks.set(i, values[select.selectedIndex - 1]);
      else state.picks.delete(i);
      choose();
    });
    pick.append(select);
    controls.append(pick);
  });
  const count = make("span", "", "count");
  const back = make("button", "previous");
  const next = make("button", "next");
  for (const button of [back, next]) button.type = "button";
  controls.append(count, back, next);

  const table = make("table");
  const head = make("tr");
  const heads = data.columns.map((column, i) => {
    const th = make("th", undefined, numeric[i] ? "num" : "");
    th.scope = "col";
    const button = make("button", column.title);
    button.type = "button";
    button.addEventListener("click", () => {
      state.down = state.sort === i ? !state.down : false;
      state.sort = i;
      choose();
    });
    th.append(button);
    head.append(th);
    return th;
  });
  const thead = make("thead");
  thead.append(head);
  const body = make("tbody");
  table.append(thead, body);
  const scroll = make("div", undefined, "scroll");
  scroll.append(table);
  place.replaceChildren(controls, scroll);

  // A trial's own settings open below its row.
  const toggle = (line, hash) => {
    if (line.nextSibling && line.nextSibling.dataset.config) {
      line.nextSibling.remove();
      return;
    }
    const row = make("tr");
    row.dataset.config = "yes";
    const cell = make("td");
    cell.colSpan = data.columns.length;
    cell.append(make("pre", JSON.stringify(data.configs[hash], null, 2)));
    row.append(cell);
    line.after(row);
  };
  const draw = () => {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    state.page = Math.min(Math.max(0, state.page), pages - 1);
    const first = state.page * PAGE;
    const rows = shown.slice(first, first + PAGE).map((values) => {
      const line = make("tr");
      values.forEach((value, i) => {
        const cell = make("td", undefined, numeric[i] ? "num" : "");
        if (data.columns[i].key === "hash" && Object.hasOwn(data.configs, value)) {
          const button = make("button", print(value, data.columns[i]));
          button.type = "button";
          button.title = `${value}: show what this trial's config changes`;
          button.addEventListener("click", () => toggle(line, value));
          cell.append(button);
        } else {
          cell.textContent = print(value, data.columns[i]);
          if (cell.textContent !== String(value) && value !== null) cell.title = String(value);
          if (data.columns[i].key === "status" && value !== "done") cell.classList.add("is-failed");
        }
        line.append(cell);
      });
      return line;
    });
    body.replaceChildren(...rows);
    const last = Math.min(first + PAGE, shown.length);
    const of = shown.length === data.rows.length ? "" : ` (of ${data.rows.length})`;
    count.textContent = shown.length ? `${first + 1}–${last} of ${shown.length}${of}` : `none of ${data.rows.length}`;
    back.disabled = state.page === 0;
    next.disabled = state.page >= pages - 1;
  };
  const choose = () => {
    const text = state.text.toLowerCase();
    shown = data.rows.filter(
      (row) =>
        [...state.picks].every(([i, value]) => row[i] === value) &&
        (!text || row.some((value) => value !== null && String(value).toLowerCase().includes(text))),
    );
    if (state.sort >= 0) shown.sort(compare(state.sort)); // filter made a copy
    heads.forEach((th, i) => {
      if (i === state.sort) th.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    });
    state.page = 0;
    draw();
  };
  search.addEventListener("input", () => {
    state.text = search.value.trim();
    choose();
  });
  back.addEventListener("click", () => { state.page -= 1; draw(); });
  next.addEventListener("click", () => { state.page += 1; draw(); });
  draw();
})();
// What is folded is printed too, but for trials and configs; then it is as it was.
(() => {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of opened) one.open = false;
  });
})();
