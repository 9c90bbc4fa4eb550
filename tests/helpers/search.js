// Ask the built site's search, as its page does: node search.js SITE QUERY…
// For each query it prints one line of JSON: the results, best first, as "page#anchor".
const fs = require("fs");
const path = require("path");
const vm = require("vm");

const [site, ...queries] = process.argv.slice(2);
const page = {
  document: { addEventListener() {}, getElementById: () => ({}), body: {}, readyState: "loading" },
  localStorage: { setItem() {} },
  SPHINX_HIGHLIGHT_ENABLED: false,
  _: (text) => text,
  _ready() {},
};
page.window = page;
vm.createContext(page);
const scripts = ["documentation_options.js", "language_data.js", "searchtools.js"];
for (const file of [...scripts.map((name) => path.join("_static", name)), "searchindex.js"]) {
  vm.runInContext(fs.readFileSync(path.join(site, file), "utf8"), page);
}
page.queries = queries;
const results = vm.runInContext(
  "queries.map((query) => Search._performSearch(...Search._parseQuery(query)))",
  page,
);
for (const found of results) {
  console.log(JSON.stringify(found.reverse().map(([name, , anchor]) => name + anchor)));
}
