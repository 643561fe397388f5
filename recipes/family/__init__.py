"""The recurrent family in one table: same data, same minutes, about as many parameters."""
