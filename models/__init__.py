"""What training made, as package data: model files, each folder with its `card.toml`, and the class file."""
