"""An avatar that is driven by sound: what it hears, how its face moves, how it is drawn."""
