# Every target sets up what it needs by itself. Start with `make demo` and `make test`.
NODE := node_modules/.bin/node
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

.PHONY: demo test build setup check unit e2e bench chaos frontends clean

demo: build
	$(NODE) scripts/demo.ts

test: check unit build e2e

build: setup
	$(NODE) scripts/build.ts
	$(NODE) scripts/warm-up.ts

setup:
	@scripts/setup.sh

check: setup
	$(NODE) node_modules/typescript/bin/tsc --noEmit -p tsconfig.json
	node_modules/.bin/biome check --diagnostic-level=error .

unit: setup
	$(NODE) scripts/test.ts packages scripts

e2e: build
	$(NODE) scripts/test.ts e2e

# The example frontends as one file each, for the Dockerfiles beside them.
frontends: setup
	$(NODE) examples/bundle.ts

bench: build
	$(NODE) scripts/bench.ts
	$(NODE) bench/dockerfile.bench.ts 500
	$(NODE) bench/bake.bench.ts

# ROUNDS (20) and SEED may be given.
chaos: build
	$(NODE) scripts/chaos.ts $(ROUNDS) $(SEED)

clean:
	rm -rf bin dist node_modules
