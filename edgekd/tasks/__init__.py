"""How a recipe is scored. Numpy only: the same code scores torch and the shipped artefact."""
