"""The shop's tests, with unittest: no key, no network, no waiting."""

from django.test import SimpleTestCase

from .runner import fake

SESSION = "/api/chatkit/session"


class ChatTest(SimpleTestCase):
    """What a customer's page gets."""

    def setUp(self) -> None:
        """Sign a customer of this test's own in."""
        fake.recover()
        self.customer = self.id()
        self.client.get("/sign-in", {"customer": self.customer})

    def test_a_customer_gets_a_chat(self) -> None:
        """The session is the customer's, and its secret reaches the page."""
        answer = self.client.post(SESSION, {}, content_type="application/json")

        self.assertEqual(answer.status_code, 200)
        fake.assert_created(user=self.customer, times=1)
        session = fake.sessions[answer.json()["session_id"]]
        self.assertEqual(answer.json()["client_secret"], session.client_secret)

    def test_a_stranger_gets_none(self) -> None:
        """Nobody is signed in, and nothing is asked of the API."""
        answer = self.client_class().post(SESSION, {}, content_type="application/json")

        self.assertEqual(answer.status_code, 401)
        fake.assert_created(user=self.customer, times=0)

    def test_signing_out_ends_the_chat(self) -> None:
        """Every session of the customer is deleted."""
        for _ in range(2):
            self.client.post(SESSION, {}, content_type="application/json")

        self.assertEqual(self.client.delete(SESSION).status_code, 204)

        fake.assert_deleted(user=self.customer, times=2)

    def test_a_page_is_told_when_the_api_is_down(self) -> None:
        """The page sees a code, and none of the API's words."""
        fake.fail_next(503, message="Overloaded.", times=None)

        with self.assertLogs("chatkit_sessions", "ERROR"):
            answer = self.client.post(SESSION, {}, content_type="application/json")

        self.assertEqual(answer.status_code, 502)
        self.assertNotContains(answer, "Overloaded", status_code=502)
