"""Experience from other processes: messages, both ends of the link, worker processes, and the vecenv over them."""
