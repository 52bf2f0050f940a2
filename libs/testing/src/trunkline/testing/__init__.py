"""For development: a real nats-server and Twilio's side of a call."""
