// Stands in for OpenAI's <openai-chatkit>, which talks to the real API only. It does with the secrets
// what the real one does: asks for the first one at once, and for another one before that runs out.
const RENEW_AFTER_SECONDS = 45;

class ChatKitStandIn extends HTMLElement {
  secrets = [];
  #options;
  #timer;

  setOptions(options) {
    this.#options = options;
    if (this.secrets.length === 0) this.#ask(null);
  }

  connectedCallback() {
    this.innerHTML = `
      <p><strong>Here the chat would be.</strong> <span role="status">Connecting …</span></p>
      <p>This stands in for OpenAI's widget, which needs a real key. It renews its secret
      ${RENEW_AFTER_SECONDS} seconds after it got one.</p>
      <button>Renew now</button>`;
    this.querySelector("button").addEventListener("click", () => this.#ask(this.secrets.at(-1)));
  }

  disconnectedCallback() {
    clearTimeout(this.#timer);
  }

  async #ask(current) {
    clearTimeout(this.#timer);
    const status = this.querySelector("[role=status]");
    try {
      this.secrets.push(await this.#options.api.getClientSecret(current));
    } catch {
      status.textContent = "No connection.";
      return;
    }
    status.textContent = `Connected with secret number ${this.secrets.length}.`;
    const renew = () => this.#ask(this.secrets.at(-1));
    this.#timer = setTimeout(renew, RENEW_AFTER_SECONDS * 1000);
  }
}

customElements.define("openai-chatkit", ChatKitStandIn);
