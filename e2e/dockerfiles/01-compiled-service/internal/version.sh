version() { echo "$VERSION ($COMMIT)"; }
