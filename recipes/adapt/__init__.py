"""One layer over a frozen bundle learns one speaker, by real-time recurrent learning, as a small device could."""
