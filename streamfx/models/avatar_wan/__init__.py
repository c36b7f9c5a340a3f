"""Large avatars that are driven by sound: Live Avatar (arXiv 2512.04677) and SoulX-FlashHead (arXiv 2602.07449)."""
