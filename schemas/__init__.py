"""The public contracts: everything that crosses a wire. Imports nothing else of tocsin."""
