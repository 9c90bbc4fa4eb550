// Stands in for OpenAI's <openai-chatkit>, which is loaded from OpenAI and checks the domain key. It
// sends what the real one sends, through `api.fetch`: the list of threads, and new messages.
class ChatKitStandIn extends HTMLElement {
  #options;

  setOptions(options) {
    const first = !this.#options;
    this.#options = options;
    if (first) this.#showThreads();
  }

  connectedCallback() {
    this.innerHTML = `
      <p><strong>A stand-in for OpenAI's widget.</strong> <span role="status"></span></p>
      <ul aria-label="Threads"></ul>
      <form><input aria-label="Message" required /><button>Send</button></form>
      <p aria-label="Answer"></p>`;
    this.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      const text = this.querySelector("input").value;
      const input = { content: [{ type: "input_text", text }], attachments: [], inference_options: {} };
      this.#show(this.request({ type: "threads.create", params: { input } }));
    });
  }

  async request(body) {
    const { url, fetch } = this.#options.api;
    const response = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    this.querySelector("[role=status]").textContent = `Status ${response.status}.`;
    return response;
  }

  async #showThreads() {
    const response = await this.request({ type: "threads.list", params: {} });
    if (!response.ok) return;
    const { data } = await response.json();
    const items = data.map(({ title }) => Object.assign(document.createElement("li"), { textContent: title }));
    this.querySelector("ul").replaceChildren(...items);
  }

  async #show(sent) {
    const response = await sent;
    const answer = this.querySelector("[aria-label=Answer]");
    answer.textContent = "";
    if (!response.ok) return;
    for (const line of (await response.text()).split("\n")) {
      const event = line.startsWith("data: ") ? JSON.parse(line.slice(6)) : {};
      if (event.type === "thread.item.done" && event.item.type === "assistant_message") {
        answer.textContent = event.item.content[0].text;
      }
    }
    await this.#showThreads();
  }
}

customElements.define("openai-chatkit", ChatKitStandIn);
