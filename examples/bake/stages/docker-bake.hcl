group "default" {
  targets = ["app", "test"]
}

# Settings that targets share; nobody builds it by itself.
target "_common" {
  args = {
    GREETING = "hello"
  }
}

target "toolchain" {
  context = "base"
}

target "app" {
  inherits = ["_common"]
  context  = "app"
  contexts = {
    toolchain = "target:toolchain"
  }
}

# Another stage of the same Dockerfile, with the same context.
target "test" {
  inherits = ["app"]
  target   = "test"
  output   = ["type=cacheonly"]
}
