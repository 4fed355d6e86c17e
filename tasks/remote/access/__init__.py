"""Who may join: certificates, tokens, and the port that checks them."""
