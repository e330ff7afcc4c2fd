# Filled in by the file that the CI makes; empty on a developer's machine.
target "docker-metadata-action" {
  tags = ["app:local"]
}

target "default" {
  inherits = ["docker-metadata-action"]
  args = {
    MODE = "production"
  }
}
