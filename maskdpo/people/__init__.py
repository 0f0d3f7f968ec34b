"""What the decisions of people say: how far they agree with each other and with the judge, and gold made of them."""
