"""Makes an entry of the zoo, ``runs/zoo/<name>``, of a run; ``algos.run.zoo`` finds them."""
