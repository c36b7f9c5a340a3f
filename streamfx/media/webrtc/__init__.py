"""WebRTC: publishers that come in by WHIP (RFC 9725), viewers served by WHEP (draft-ietf-wish-whep)."""
