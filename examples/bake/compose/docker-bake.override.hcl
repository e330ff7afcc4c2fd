# Read after compose.yaml: what is given here replaces or extends what is there.
target "api" {
  args = {
    LEVEL = "info"
  }
  cache-from = ["type=registry,ref=registry.example/api:cache"]
}
