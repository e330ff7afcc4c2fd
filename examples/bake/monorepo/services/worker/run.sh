. /shared/greet.sh
greet worker
