variable "TAG" {
  default     = "dev"
  description = "Tag of all images"
}

group "default" {
  targets = ["service"]
}

# One target for each service, named after it.
target "service" {
  name = service
  matrix = {
    service = ["api", "web", "worker"]
  }
  description = "The ${service} service"
  dockerfile  = "services/${service}/Dockerfile"
  args = {
    SERVICE = service
  }
  tags = ["registry.example/${service}:${TAG}"]
}
