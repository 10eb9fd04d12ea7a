"""What a client sees: resources, answers, bodies. Requests end here; below, nobody knows them."""
