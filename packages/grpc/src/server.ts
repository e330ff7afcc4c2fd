export { HealthStatus } from "./health.ts";
export { type ListenAddress, type Listener, listen, type ServerTls } from "./listen.ts";
export { addReflection } from "./reflection.ts";
export {
  type Connection,
  type Interceptor,
  type MethodHandler,
  type RawHandler,
  Router,
  type RouterOptions,
  type ServiceHandlers,
} from "./router.ts";
export { type CallContext, type Peer, ServerCall } from "./server-call.ts";
