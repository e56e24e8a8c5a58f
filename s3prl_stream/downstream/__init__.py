"""Tasks on frozen or fine-tuned upstreams: recipes, training, evaluation, prediction."""
