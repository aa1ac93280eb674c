"""What talks to an exchange: one client that bears everything an exchange can answer."""
