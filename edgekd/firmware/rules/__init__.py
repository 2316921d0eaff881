"""How each operator of the closed set becomes integer steps: one function an operator."""
