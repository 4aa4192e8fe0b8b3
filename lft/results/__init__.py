"""Result folders: what a run leaves behind, who reads and who joins it."""
