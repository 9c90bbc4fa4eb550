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
      <style>
        openai-chatkit { display: flex; flex-direction: column; gap: 0.8rem; padding: 1rem; }
        openai-chatkit p, openai-chatkit ul { margin: 0; }
        openai-chatkit small { color: #66758a; }
        openai-chatkit [aria-label="Question"], openai-chatkit [aria-label=Answer] { padding: 0.6rem 0.9rem; border-radius: 0.9rem; }
        openai-chatkit [aria-label="Question"] { align-self: end; background: #e6edf7; }
        openai-chatkit [aria-label=Answer] { align-self: start; background: #f1f3f6; }
        openai-chatkit p:empty { display: none; }
        openai-chatkit form { display: flex; gap: 0.5rem; margin-top: auto; }
        openai-chatkit input { flex: 1; font: inherit; padding: 0.5rem 0.8rem; border: 1px solid #b8c2cf; border-radius: 0.5rem; }
      </style>
      <small>A stand-in for OpenAI's widget. <span role="status"></span></small>
      <ul aria-label="Threads"></ul>
      <p aria-label="Question"></p>
      <p aria-label="Answer"></p>
      <form><input aria-label="Message" placeholder="Message" required /><button>Send</button></form>`;
    this.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      const field = this.querySelector("input");
      this.#part("Question").textContent = field.value;
      const content = [{ type: "input_text", text: field.value }];
      const input = { content, attachments: [], inference_options: {} };
      this.#show(this.request({ type: "threads.create", params: { input } }));
      field.value = "";
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

  #part(label) {
    return this.querySelector(`[aria-label="${label}"]`);
  }

  async #showThreads() {
    const response = await this.request({ type: "threads.list", params: {} });
    if (!response.ok) return;
    const { data } = await response.json();
    const items = data.map(({ title }) => Object.assign(document.createElement("li"), { textContent: title }));
    this.#part("Threads").replaceChildren(...items);
  }

  async #show(sent) {
    const response = await sent;
    const answer = this.#part("Answer");
    answer.textContent = "";
    if (!response.ok) return;
    let unread = "";
    for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
      const lines = (unread + chunk).split("\n");
      unread = lines.pop();
      for (const line of lines) {
        const event = line.startsWith("data: ") ? JSON.parse(line.slice(6)) : {};
        if (event.update?.delta) answer.textContent += event.update.delta;
        if (event.type === "thread.item.done" && event.item.type === "assistant_message") {
          answer.textContent = event.item.content[0].text;
        }
      }
    }
    await this.#showThreads();
  }
}

customElements.define("openai-chatkit", ChatKitStandIn);
