"use strict";
(() => {
  const box = document.querySelector(".rowtable");
  if (!box) return;
  const table = box.querySelector("table.rows");
  const heads = [...table.tHead.rows[0].cells];
  const bodies = [...table.tBodies];
  const find = (role) => box.querySelector(`[data-role="${role}"]`);
  const texts = new Map(bodies.map((body) => [body, body.textContent.toLowerCase()]));
  const shownAtFirst = heads.map((head) => !head.classList.contains("off"));
  let column = null;
  let descending = false;

  const indexOf = (key) => heads.findIndex((head) => head.dataset.key === key);
  const value = (body, index) => body.rows[0].cells[index].dataset.v;

  function compare(a, b) {
    const [x, y] = [value(a, column), value(b, column)];
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = heads[column].dataset.numeric === "1" ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true });
    return descending ? -order : order;
  }

  function sort() {
    const byOrder = (a, b) => Number(a.dataset.order) - Number(b.dataset.order);
    const sorted = [...bodies].sort((a, b) => (column === null ? 0 : compare(a, b)) || byOrder(a, b));
    table.append(...sorted);
    heads.forEach((head, i) => head.setAttribute("aria-sort", i !== column ? "none" : descending ? "descending" : "ascending"));
    find("sort").value = column === null ? "" : String(column);
    find("direction").textContent = descending ? "↓" : "↑";
  }

  function filter() {
    const words = find("text").value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = [...box.querySelectorAll('[data-role="axis"]')].filter((select) => select.value !== "");
    let count = 0;
    for (const body of bodies) {
      const kept =
        words.every((word) => texts.get(body).includes(word)) &&
        chosen.every((select) => value(body, indexOf(select.dataset.key)) === select.value);
      body.hidden = !kept;
      count += kept;
    }
    find("count").textContent = count === bodies.length ? `${count} rows` : `${count} of ${bodies.length} rows`;
  }

  function show(index, shown) {
    for (const row of [table.tHead.rows[0], ...bodies.map((body) => body.rows[0])]) {
      row.cells[index].classList.toggle("off", !shown);
    }
  }

  function open(body) {
    const more = body.rows[1];
    more.hidden = !more.hidden;
    body.classList.toggle("is-open", !more.hidden);
    body.querySelector("button.open")?.setAttribute("aria-expanded", String(!more.hidden));
  }

  heads.forEach((head, i) =>
    head.addEventListener("click", () => {
      descending = column === i ? !descending : false;
      column = i;
      sort();
    }),
  );
  for (const body of bodies) {
    body.rows[0].addEventListener("click", () => {
      if (String(window.getSelection()) === "") open(body);
    });
  }
  find("sort").addEventListener("change", (event) => {
    column = event.target.value === "" ? null : Number(event.target.value);
    sort();
  });
  find("direction").addEventListener("click", () => {
    descending = !descending;
    sort();
  });
  find("text").addEventListener("input", filter);
  box.addEventListener("change", (event) => {
    if (event.target.dataset.role === "axis") filter();
    if (event.target.dataset.role === "column") show(Number(event.target.value), event.target.checked);
  });
  find("reset").addEventListener("click", () => {
    find("text").value = "";
    for (const select of box.querySelectorAll('[data-role="axis"]')) select.value = "";
    for (const input of box.querySelectorAll('[data-role="column"]')) {
      input.checked = shownAtFirst[Number(input.value)];
      show(Number(input.value), input.checked);
    }
    column = null;
    descending = false;
    sort();
    filter();
  });
  document.addEventListener("click", (event) => {
    const chooser = box.querySelector(".chooser");
    if (chooser.open && !chooser.contains(event.target)) chooser.open = false;
  });
})();
