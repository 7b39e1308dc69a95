"""The client: submits signed jobs, follows them, and opens results after checking them."""
